import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.stats import binom, kstest

from medsae.polysemy.jaccard import (
    bootstrap_overlaps,
    label_delta,
    observed_overlaps,
    pair_similarity,
    permutation_pvalue,
    resampled_overlaps,
)
from medsae.polysemy.overlap import grouped_overlap
from medsae.statistics import cluster_weights, percentile_interval, stream


def simulate(
    rng,
    n_patients=24,
    sizes=(1, 2, 3),
    patient_share=0.6,
    mixed=0.3,
    effect=0.0,
    k=8,
    n_latents=40,
    n_senses=2,
):
    """Codes, patient, label: patients favour latents and senses; ``effect`` joins the two."""
    patient = np.repeat(np.arange(n_patients), rng.choice(sizes, n_patients))
    n = len(patient)
    main, is_mixed = rng.integers(n_senses, size=n_patients), rng.random(n_patients) < mixed
    label = np.where(is_mixed[patient], rng.integers(n_senses, size=n), main[patient])
    # the k smallest keys fire: a patient's favourites often, then those of the sense
    keys = rng.random((n, n_latents))
    favourite = rng.random((n_patients, n_latents)).argsort(1) < k
    keys[favourite[patient] & (rng.random(keys.shape) < patient_share)] -= 1
    own = rng.random((n, n_senses, 10)) - 2 * (rng.random((n, n_senses, 10)) < 2 * effect / 3)
    own[np.arange(n_senses)[None, :] != label[:, None]] = 9
    ids = np.argsort(np.concatenate([keys, own.reshape(n, -1) + (own.reshape(n, -1) > 0)], 1), 1)
    codes = csr_array(
        (
            np.ones(n * k, np.float32),
            ids[:, :k].ravel().astype(np.int32),
            np.arange(0, n * k + 1, k, dtype=np.int32),
        ),
        shape=(n, n_latents + 10 * n_senses),
    )
    return codes, patient, label.astype(np.int8)


def by_loops(codes, patient, label, weights=None):
    """within, cross, Δ, index written from their definitions."""
    sets = [set(codes.indices[a:b]) for a, b in zip(codes.indptr, codes.indptr[1:], strict=False)]
    weights = np.ones(patient.max() + 1) if weights is None else weights
    sums, counts = {}, {}
    for i in range(len(sets)):
        for j in range(len(sets)):
            if patient[i] == patient[j]:
                continue
            key = tuple(sorted((label[i], label[j])))
            weight = weights[patient[i]] * weights[patient[j]]
            sums[key] = sums.get(key, 0) + weight * len(sets[i] & sets[j]) / len(sets[i] | sets[j])
            counts[key] = counts.get(key, 0) + weight
    means = {key: sums[key] / counts[key] for key in sums}
    within = np.mean([mean for (a, b), mean in means.items() if a == b])
    cross = np.mean([mean for (a, b), mean in means.items() if a != b])
    return within, cross, within - cross, 1 - cross / within


@pytest.mark.parametrize("n_senses", [2, 3])
def test_statistics_equal_their_definitions(n_senses):
    rng = np.random.default_rng(3)
    codes, patient, label = simulate(rng, effect=0.3, n_senses=n_senses)
    grouped = grouped_overlap(codes, patient, label, None)
    found = observed_overlaps(grouped, n_senses)
    expected = by_loops(codes, patient, label)
    for name, value in zip(("within", "cross", "delta", "polysemy_index"), expected, strict=True):
        assert getattr(found, name)[0] == pytest.approx(value, rel=1e-6)


def test_a_resample_equals_its_definition():
    codes, patient, label = simulate(np.random.default_rng(4), effect=0.3)
    weights = cluster_weights(int(patient.max()) + 1, 3, stream(0))
    grouped = grouped_overlap(codes, patient, label, None)
    found = resampled_overlaps(grouped, 2, weights)
    for row, weight in enumerate(weights):
        # copies of one patient make no pair: `by_loops` leaves them out as well
        assert found.delta[row] == pytest.approx(by_loops(codes, patient, label, weight)[2])


def test_permuted_statistic_equals_the_statistic_of_permuted_labels():
    codes, patient, label = simulate(np.random.default_rng(5), n_senses=3)
    similarity = pair_similarity(codes, patient, None)
    labels = np.stack([np.random.default_rng(i).permutation(label) for i in range(4)])
    found = label_delta(similarity, patient, labels, 3)
    expected = [by_loops(codes, patient, row)[2] for row in labels]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_worked_example():
    # sense 0: {1,2} {1,3}; sense 1: {4,5} {4,5}; four patients
    codes = csr_array(
        (np.ones(8, np.float32), np.array([1, 2, 1, 3, 4, 5, 4, 5]), np.arange(0, 9, 2)),
        shape=(4, 6),
    )
    grouped = grouped_overlap(codes, np.arange(4), np.array([0, 0, 1, 1]), None)
    found = observed_overlaps(grouped, 2)
    assert found.within[0] == pytest.approx((1 / 3 + 1) / 2)
    assert found.cross[0] == 0.0
    assert found.polysemy_index[0] == 1.0


def test_same_sense_pairs_of_one_patient_do_not_count():
    # without the exclusion the patient of ten equal occurrences would look like a sense
    rng = np.random.default_rng(6)
    codes, patient, label = simulate(rng, n_patients=40, sizes=(6,), patient_share=1.0, mixed=0.0)
    delta = observed_overlaps(grouped_overlap(codes, patient, label, None), 2).delta[0]
    assert abs(delta) < 0.02


def test_a_planted_difference_is_found_and_estimated():
    codes, patient, label = simulate(np.random.default_rng(7), n_patients=60, effect=0.5)
    grouped = grouped_overlap(codes, patient, label, None)
    observed = observed_overlaps(grouped, 2)
    low, high = percentile_interval(bootstrap_overlaps(grouped, 2, 199, stream(1)).delta)
    assert 0 < low < observed.delta[0] < high
    similarity = pair_similarity(codes, patient, None)
    assert permutation_pvalue(similarity, patient, label, 999, stream(2)) == 1 / 1000


NULLS = {
    "dependent occurrences": {},
    "pure patients": {"mixed": 0.0, "sizes": (3,), "patient_share": 0.9},
    "unequal patients": {"sizes": (1, 2, 5, 9)},
}


@pytest.mark.parametrize("design", NULLS)
def test_p_is_uniform_when_senses_do_not_matter(design):
    n_sets, n_permutations = 500, 199
    pvalues = []
    for number in range(n_sets):
        rng = np.random.default_rng([number, 11])
        codes, patient, label = simulate(rng, **NULLS[design])
        similarity = pair_similarity(codes, patient, None)
        pvalues.append(
            permutation_pvalue(similarity, patient, label, n_permutations, stream(number))
        )
    assert kstest(pvalues, "uniform").pvalue > 0.001
    for alpha in (0.01, 0.05, 0.2):
        rejected = (np.array(pvalues) <= alpha).sum()
        low, high = binom.ppf([0.0005, 0.9995], n_sets, alpha)
        assert low <= rejected <= high


def test_shuffling_single_occurrences_would_find_what_is_not_there():
    # the same null data, labels shuffled over occurrences: what the patient exchange avoids
    n_sets, rejected = 200, 0
    for number in range(n_sets):
        rng = np.random.default_rng([number, 12])
        codes, patient, label = simulate(rng, **NULLS["pure patients"])
        similarity = pair_similarity(codes, patient, None)
        shuffled = rng.permuted(np.tile(label, (199, 1)), axis=1)
        null = label_delta(similarity, patient, shuffled, 2)
        rejected += (1 + (null >= label_delta(similarity, patient, label[None], 2)).sum()) <= 10
    assert rejected > binom.ppf(0.9995, n_sets, 0.05)


# a 95% interval is too wide near Δ = 0, and a little too narrow far from it: `bootstrap_overlaps`
COVERAGE = {0.0: (0.99, 1.0), 0.3: (0.955, 0.995), 0.6: (0.89, 0.955)}


@pytest.mark.parametrize("effect", COVERAGE)
def test_the_interval_covers_the_true_difference_as_often_as_is_said(effect):
    truth = np.mean(
        [
            observed_overlaps(
                grouped_overlap(*simulate(rng, n_patients=300, effect=effect), None), 2
            ).delta
            for rng in map(np.random.default_rng, range(60))
        ]
    )
    n_sets, covered = 500, 0
    for number in range(n_sets):
        rng = np.random.default_rng([number, 13])
        codes, patient, label = simulate(rng, n_patients=40, effect=effect)
        grouped = grouped_overlap(codes, patient, label, None)
        low, high = percentile_interval(bootstrap_overlaps(grouped, 2, 199, rng).delta)
        covered += low <= truth <= high
    least, most = COVERAGE[effect]
    assert least <= covered / n_sets <= most


def test_a_permutation_that_changes_nothing_gives_no_p():
    codes, patient, _ = simulate(np.random.default_rng(8), n_patients=20, sizes=(2,))
    similarity = pair_similarity(codes, patient, None)
    label = np.tile([0, 1], 20).astype(np.int8)
    assert np.isnan(permutation_pvalue(similarity, patient, label, 99, stream(0)))
    # the same latents everywhere: Δ is the same however senses are exchanged
    label = np.repeat(np.arange(20) % 2, 2).astype(np.int8)
    same = np.where(patient[:, None] == patient[None, :], 0, 4096).astype(np.float32)
    assert np.isnan(permutation_pvalue(same, patient, label, 99, stream(0)))
