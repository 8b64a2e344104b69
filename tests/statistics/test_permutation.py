import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsae.statistics import (
    cluster_strata,
    exchange_changes,
    permuted_labels,
    pvalue_greater,
    stream,
)


def permute(labels, clusters, n=500, seed=0):
    return np.concatenate(list(permuted_labels(labels, clusters, n, stream(seed, "test"))))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=80))
def test_strata_hold_every_cluster_once_and_are_large_enough(sizes):
    sizes = np.array(sizes)
    strata = cluster_strata(sizes)
    assert sorted(np.concatenate(strata)) == list(range(len(sizes)))
    assert all(len(stratum) >= min(10, len(sizes)) for stratum in strata)
    bounds = [(sizes[stratum].min(), sizes[stratum].max()) for stratum in strata]
    assert all(a[1] < b[0] for a, b in itertools.pairwise(bounds))


def test_whole_sequences_are_exchanged_among_patients_of_one_size():
    sequences = [(0, 0, 1), (1, 1, 1), (0, 1, 0)] * 4
    labels = np.array(sequences).ravel()
    clusters = np.repeat(np.arange(12), 3)
    for row in permute(labels, clusters):
        assert sorted(map(tuple, row.reshape(12, 3))) == sorted(sequences)


def test_every_patient_gets_every_sequence_equally_often():
    labels = np.repeat(np.arange(12), 2)
    permuted = permute(labels, np.repeat(np.arange(12), 2), n=6000)[:, ::2]
    counts = np.stack([np.bincount(column, minlength=12) for column in permuted.T])
    # 500 expected in each cell, standard deviation 21
    assert np.abs(counts - 500).max() < 110


def test_a_stretched_sequence_keeps_its_order():
    # 4 patients of 2 and 4 of 6 form one stratum: a donor's (0, 1) becomes 000111
    labels = np.array([0, 1] * 4 + [0, 0, 0, 1, 1, 1] * 4)
    clusters = np.concatenate([np.repeat(np.arange(4), 2), np.repeat(np.arange(4, 8), 6)])
    for row in permute(labels, clusters, 100):
        np.testing.assert_array_equal(row, labels)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=30), st.integers(0, 1000))
def test_patients_of_one_sense_stay_patients_of_one_sense(sizes, seed):
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.random.default_rng(seed).integers(0, 3, len(sizes))[clusters]
    for row in permute(labels, clusters, 20, seed):
        assert all(len(set(row[clusters == c])) == 1 for c in range(len(sizes)))


def test_number_asked_for_is_number_given_and_reproducible():
    labels, clusters = np.arange(40) % 2, np.repeat(np.arange(20), 2)
    first = permute(labels, clusters, 1234)
    assert first.shape == (1234, 40)
    np.testing.assert_array_equal(first, permute(labels, clusters, 1234))


def test_rows_out_of_order_are_refused():
    with pytest.raises(ValueError, match="sorted by cluster"):
        permute(np.array([0, 1]), np.array([1, 0]))


def test_p_is_never_zero():
    assert pvalue_greater(0, 99) == 0.01
    assert pvalue_greater(99, 99) == 1.0


@settings(max_examples=200)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=14), st.integers(0, 3), st.integers(0, 999))
def test_labels_can_change_exactly_where_a_permutation_changes_them(sizes, kind, seed):
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    place = np.concatenate([np.arange(size) for size in sizes])
    labels = [
        rng.integers(0, 2, len(clusters)),  # anything
        rng.integers(0, 2, len(sizes))[clusters],  # pure patients
        place % 2,  # one sequence for each size
        np.ones(len(clusters), int),  # one label
    ][kind]
    changed = (permute(labels, clusters, 400, seed) != labels).any()
    assert exchange_changes(labels, clusters) == changed


def test_patients_of_one_sequence_cannot_be_exchanged():
    assert not exchange_changes(np.array([0, 1] * 12), np.repeat(np.arange(12), 2))
    assert exchange_changes(np.array([0, 1] * 11 + [1, 0]), np.repeat(np.arange(12), 2))
    assert not exchange_changes(np.array([0, 1, 1]), np.zeros(3, int))
