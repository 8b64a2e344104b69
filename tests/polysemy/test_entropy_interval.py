"""The interval of rarefied entropy covers the entropy of the population."""

from functools import cache

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.stats import binom

from medsae.polysemy.entropy import drawn_entropies, patient_draws, rarefied_entropy
from medsae.statistics import stream

N_LATENTS, K = 60, 4


def occurrences(rng, n_patients, per_patient):
    """Codes, patient: a patient favours eight latents, so its occurrences are alike."""
    sizes = rng.choice(per_patient, n_patients)
    patient = np.repeat(np.arange(n_patients), sizes)
    weight = 1 / np.arange(1, N_LATENTS + 1)
    rows = []
    for size in sizes:
        favourite = rng.choice(N_LATENTS, 8, replace=False, p=weight / weight.sum())
        rows += [rng.choice(favourite, K, replace=False) for _ in range(size)]
    n = len(rows)
    codes = csr_array(
        (rng.gamma(2.0, size=K * n), np.concatenate(rows).astype(np.int32), K * np.arange(n + 1)),
        shape=(n, N_LATENTS),
    )
    return codes, patient


@cache
def population():
    return occurrences(np.random.default_rng(0), 60_000, (1,))


def coverage(n_patients, size, per_patient, n_sets):
    """Share of sets whose interval holds the truth, and the mean of estimate − truth in errors."""
    codes, patient = population()
    draws, _ = patient_draws(patient, size, 10_000, stream(1))
    truth = drawn_entropies(codes, draws).mean()
    covered, offsets = 0, []
    for number in range(n_sets):
        rng = np.random.default_rng([number, 3])
        estimate, low, high = rarefied_entropy(
            *occurrences(rng, n_patients, per_patient), size, rng
        )
        covered += low <= truth <= high
        offsets.append(4 * (estimate - truth) / (high - low))
    return covered, np.mean(offsets)


def test_the_interval_covers_and_the_estimate_has_no_bias():
    covered, offset = coverage(25, 10, (1, 2, 3), 60)
    assert covered >= binom.ppf(0.0005, 60, 0.93)
    # a mean of 60 offsets, each in units of its error
    assert abs(offset) < 4.5 / np.sqrt(60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_patients", "size", "per_patient"),
    [
        (10, 5, (1, 2, 3)),
        (25, 12, (1, 2, 3)),
        (60, 10, (1, 2, 3)),
        (60, 30, (1, 2, 3)),
        (60, 10, (1, 1, 20)),
        (150, 10, (1, 2, 3)),
    ],
)
def test_coverage_is_near_its_level_at_any_number_of_patients(n_patients, size, per_patient):
    n_sets = 500
    covered, offset = coverage(n_patients, size, per_patient, n_sets)
    print(
        f"{n_patients} patients, {size} drawn, {per_patient}: {covered / n_sets:.3f} {offset:.3f}"
    )
    # nominal .95; the jackknife errs on the wide side
    assert binom.ppf(0.0005, n_sets, 0.935) <= covered <= binom.ppf(0.9995, n_sets, 0.985)
    # in standard errors; that of the truth itself is about 0.1
    assert abs(offset) < 0.35
