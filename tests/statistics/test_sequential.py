import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from medsae.statistics import SequentialPvalues, permutations_needed
from medsae.statistics.sequential import HITS, MAX_PERMUTATIONS


def run(reached, max_permutations, block):
    """p and permutations of tests reached as ``reached`` [tests, permutations] says."""
    tests = SequentialPvalues(len(reached), max_permutations)
    for start in range(0, max_permutations, block):
        tests.update(reached[tests.open, start : min(start + block, max_permutations)])
    return tests.pvalues, tests.permutations


@given(st.integers(0, 10_000), st.integers(1, 400))
def test_equal_to_the_definition_however_permutations_are_blocked(seed, block):
    rng = np.random.default_rng(seed)
    reached = rng.random((5, 600)) < rng.choice([0.0, 0.1, 0.5, 1.0], (5, 1))
    pvalues, taken = run(reached, 600, block)
    for row, p, n in zip(reached, pvalues, taken, strict=True):
        hits = np.flatnonzero(row)
        if len(hits) >= HITS:
            assert n == hits[HITS - 1] + 1
            assert p == pytest.approx(HITS / n)
        else:
            assert n == 600
            assert p == pytest.approx((1 + len(hits)) / 601)


def test_p_is_uniform_under_the_null_and_ends_early():
    # given its data a null test is reached with a probability that is uniform over data
    n_sets = 2000
    rng = np.random.default_rng(1)
    reached = rng.random((n_sets, 4000)) < rng.random((n_sets, 1))
    pvalues, taken = run(reached, 4000, 500)
    for level in (0.002, 0.01, 0.05, 0.2, 0.5):
        low, high = binom.ppf([0.0005, 0.9995], n_sets, level)
        assert low <= (pvalues <= level).sum() <= high
    assert taken.mean() < 600


def test_a_test_that_saw_nothing_has_p_one():
    assert SequentialPvalues(2, 10).pvalues.tolist() == [1.0, 1.0]


def test_one_test_among_many_can_be_found():
    for n_tests in (10, 1_000, 9_000):
        n = permutations_needed(n_tests, 0.05, 10_000)
        assert n >= 10_000
        assert n_tests / (1 + n) <= 0.05
    # beyond a bound it cannot be, and the smallest q says so
    assert permutations_needed(10**6, 0.05, 10_000) == MAX_PERMUTATIONS
    assert permutations_needed(10, 0.05, 10**6) == 10**6
