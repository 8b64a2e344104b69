"""Random cuts of terms with one meaning lie as far from zero as a term without senses does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.stats import binom

from medsae.polysemy.jaccard import observed_overlaps
from medsae.polysemy.jaccard_controls import (
    N_CUTS,
    chance_delta,
    cut_deltas,
    half_cuts,
    match_controls,
    random_cuts,
)
from medsae.polysemy.overlap import grouped_overlap
from medsae.statistics import stream


def occurrences(rng, n_patients, k=8, n_latents=40):
    """Codes, patient: a patient's occurrences are alike; nothing else is."""
    patient = np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients))
    favourite = rng.random((n_patients, n_latents)).argsort(1) < k
    keys = rng.random((len(patient), n_latents))
    keys[favourite[patient] & (rng.random(keys.shape) < 0.6)] -= 1
    ids = np.argsort(keys, axis=1)[:, :k].astype(np.int32)
    starts = k * np.arange(len(patient) + 1, dtype=np.int32)
    ones = np.ones(ids.size, np.float32)
    return csr_array((ones, ids.ravel(), starts), shape=(len(patient), n_latents)), patient


@given(st.lists(st.integers(0, 30), min_size=2, max_size=4), st.integers(8, 60))
def test_cuts_have_the_sizes_asked_for_or_shrink_in_proportion(sizes, n_patients):
    cuts = random_cuts(sizes, n_patients, stream(0))
    assert cuts.shape == (N_CUTS, n_patients)
    counts = np.stack([(cuts == part).sum(1) for part in range(len(sizes))], axis=1)
    assert (counts == counts[0]).all() and (counts >= 2).all()
    wanted = np.maximum(sizes, 2)
    if wanted.sum() <= n_patients:
        assert counts[0].tolist() == wanted.tolist()
    else:
        assert counts[0].sum() <= n_patients
        np.testing.assert_allclose(counts[0], wanted * n_patients / wanted.sum(), atol=6)


def test_every_patient_is_as_often_in_each_half():
    cuts = half_cuts(9, stream(1))
    assert ((cuts == 0).sum(1) == 4).all() and ((cuts == 1).sum(1) == 5).all()
    # 200 · 4/9 = 89 expected in each, standard deviation 7
    assert np.abs((cuts == 0).sum(0) - 89).max() < 32


def test_too_few_patients_cannot_be_cut():
    with pytest.raises(ValueError, match="3 patients cannot be cut"):
        random_cuts((2, 2), 3, stream(0))


def test_a_cut_has_the_delta_of_its_labels():
    codes, patient = occurrences(np.random.default_rng(2), 20)
    cuts = half_cuts(20, stream(2))
    one = grouped_overlap(codes, patient, np.zeros(len(patient), np.int8), None)
    found = cut_deltas(one, cuts, 2)
    for number in (0, 7):
        labelled = grouped_overlap(codes, patient, cuts[number][patient], None)
        assert found[number] == pytest.approx(observed_overlaps(labelled, 2).delta[0], abs=1e-6)


def test_the_mean_of_random_halves_is_zero_and_their_spread_is_not():
    codes, patient = occurrences(np.random.default_rng(3), 40)
    grouped = grouped_overlap(codes, patient, np.zeros(len(patient), np.int8), None)
    deltas = cut_deltas(grouped, half_cuts(40, stream(3)), 2)
    row = chance_delta(deltas)
    assert abs(deltas.mean()) < 0.15 * row["chance_delta_95"]
    assert row["chance_delta_low"] < 0 < row["chance_delta_high"]
    assert (np.abs(deltas) <= row["chance_delta_95"]).mean() == pytest.approx(0.95, abs=0.01)


def test_a_term_without_senses_exceeds_its_controls_about_one_time_in_twenty():
    # the control is more frequent than the term: uncut, or cut into halves, it would be too narrow
    n_sets, beyond, beyond_halves = 500, 0, 0
    for number in range(n_sets):
        rng = np.random.default_rng([number, 31])
        codes, patient = occurrences(rng, 24)
        label = (np.arange(24) < 8).astype(np.int8)[patient]
        delta = observed_overlaps(grouped_overlap(codes, patient, label, None), 2).delta[0]
        codes, patient = occurrences(rng, 70)
        grouped = grouped_overlap(codes, patient, np.zeros(len(patient), np.int8), None)
        like = chance_delta(cut_deltas(grouped, random_cuts((16, 8), 70, rng), 2))
        halves = chance_delta(cut_deltas(grouped, half_cuts(70, rng), 2))
        beyond += abs(delta) > like["chance_delta_95"]
        beyond_halves += abs(delta) > halves["chance_delta_95"]
    assert binom.ppf(0.0005, n_sets, 0.04) <= beyond <= binom.ppf(0.9995, n_sets, 0.06)
    assert beyond_halves > 3 * beyond


def test_controls_are_matched_by_ratio_of_frequency():
    controls = {"a": 10, "b": 20, "c": 40, "d": 80, "e": 160, "f": 320, "g": 640}
    matched = match_controls({"rare": 12, "often": 300}, controls)
    assert matched == {"rare": ("a", "b", "c", "d", "e"), "often": ("c", "d", "e", "f", "g")}
    assert match_controls({"x": 5}, {}) == {"x": ()}
