"""Typical values cover the truth, and say the same as flips of signs."""

import numpy as np
import pytest
from scipy.stats import binom

from medsae.statistics import stream
from medsae.statistics.subsets import subset_ratios


def test_p_is_that_of_flipping_signs_and_agrees_with_the_interval():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.4, 1, (1, 12)), rng.uniform(1, 3, (1, 12))
    found = subset_ratios(a, b, 20_000, stream(1))
    signs = np.random.default_rng(2).choice([-1, 1], (20_000, 12))
    assert found.pvalue[0] == pytest.approx((signs @ a[0] >= a.sum()).mean(), abs=0.015)
    assert found.value[0] == pytest.approx(a.sum() / b.sum())
    # moved by its lower end, the estimate is just significant at half of 5%
    moved = subset_ratios(a - found.low[0] * b, b, 20_000, stream(1))
    assert moved.pvalue[0] == pytest.approx(0.025, abs=0.001)


@pytest.mark.parametrize("n_clusters", [6, 12, 40])
def test_interval_covers_and_p_is_uniform_without_effect(n_clusters):
    """Clusters of unequal size that depend on each other inside; θ = 0.3."""
    n_sets, covered, pvalues = 1000, 0, []
    for number in range(n_sets):
        rng = np.random.default_rng([number, n_clusters])
        sizes = rng.integers(1, 6, n_clusters).astype(float)
        sums = 0.3 * sizes + rng.normal(0, sizes) + rng.normal(0, np.sqrt(sizes))
        found = subset_ratios(sums[None], sizes[None], 499, rng)
        covered += found.low[0] <= 0.3 <= found.high[0]
        null = subset_ratios((sums - 0.3 * sizes)[None], sizes[None], 499, rng)
        pvalues.append(null.pvalue[0])
    # between the smallest and the largest of the 63 subsets of six: 1 − 2 / 64
    low, high = binom.ppf([0.0005, 0.9995], n_sets, 0.95 if n_clusters > 6 else 62 / 64)
    assert low <= covered <= high
    for level in (1 / 32, 0.25, 0.5):
        low, high = binom.ppf([0.0005, 0.9995], n_sets, level)
        assert low <= (np.array(pvalues) <= level).sum() <= high


def test_few_clusters_have_all_their_subsets():
    a, b = np.array([[1.0, 2, 3, 4, 5, -0.5]]), np.ones((1, 6))
    found = subset_ratios(a, b, 64, stream(0))
    # the empty subset and the negative cluster alone
    assert found.pvalue[0] == 2 / 64
    assert found.low[0] == -0.5 and found.high[0] == 5


def test_what_cannot_be_said_is_not_said():
    nothing = subset_ratios(np.zeros((1, 9)), np.ones((1, 9)), 99, stream(0))
    assert nothing.value[0] == 0 and np.isnan(nothing.pvalue[0])
    few = subset_ratios(np.ones((1, 3)), np.ones((1, 3)), 999, stream(0))
    assert np.isnan(few.low[0]) and np.isnan(few.high[0])
    none = subset_ratios(np.ones((1, 3)), np.zeros((1, 3)), 999, stream(0))
    assert np.isnan(none.low[0])
