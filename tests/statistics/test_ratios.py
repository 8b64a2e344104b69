"""Intervals and p of ratios over clusters: symmetric scores, and skewed ones."""

import numpy as np
import pytest
from scipy.stats import binom

from medsae.statistics import cluster_ratios, stream
from medsae.statistics.bootstrap import cluster_weights
from medsae.statistics.studentized import studentized_ratios
from medsae.statistics.subsets import subset_ratios


def test_studentised_ratios_are_those_of_resampled_tables():
    rng = np.random.default_rng(0)
    a, b = rng.exponential(1, 9), rng.integers(1, 5, 9).astype(float)
    found = studentized_ratios(a[None], b[None], 500, stream(3))

    def estimate(a, b):
        theta = a.sum() / b.sum()
        return theta, np.sqrt(((a - theta * b) ** 2).sum()) / b.sum()

    theta, error = estimate(a, b)
    ts = []
    for counts in cluster_weights(9, 500, stream(3)).astype(int):
        drawn = np.repeat(np.arange(9), counts)
        resampled, its_error = estimate(a[drawn], b[drawn])
        if len(set(drawn)) > 1:
            ts.append((resampled - theta) / its_error)
    low, high = np.quantile(ts, [0.025, 0.975])
    assert found.value[0] == pytest.approx(theta)
    assert found.low[0] == pytest.approx(theta - high * error)
    assert found.high[0] == pytest.approx(theta - low * error)
    reaching = (np.array(ts) >= theta / error).sum()
    assert found.pvalue[0] == pytest.approx((1 + reaching) / (1 + len(ts)))


SCORES = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1,
    "lognormal": lambda rng, shape: rng.lognormal(0, 1, shape) - np.exp(0.5),
}


@pytest.mark.parametrize("n_clusters", [8, 16, 40])
@pytest.mark.parametrize(
    ("kind", "tail", "covers", "level"),
    [
        ("normal", 1, 0.95, 0.05),
        ("exponential", 1, 0.94, 0.03),
        ("exponential", -1, 0.94, 0.09),
        ("lognormal", 1, 0.90, 0.02),
        ("lognormal", -1, 0.90, 0.14),
    ],
)
def test_intervals_cover_and_p_holds_its_level_as_said(n_clusters, kind, tail, covers, level):
    """At least ``covers`` of 95% intervals, at most ``level`` of p at .05, where θ = 0."""
    n_sets = 1000
    rng = np.random.default_rng(n_clusters)
    sizes = rng.integers(1, 6, (n_sets, n_clusters)).astype(float)
    sums = tail * SCORES[kind](rng, sizes.shape) * sizes
    found = cluster_ratios(sums, sizes, 499, rng)
    covered = (found.low <= 0) & (found.high >= 0)
    assert covered.sum() >= binom.ppf(0.0005, n_sets, covers)
    assert (found.pvalue <= 0.05).sum() <= binom.ppf(0.9995, n_sets, level)
    if kind == "lognormal" and n_clusters < 40:  # where subsets alone fall short
        alone = subset_ratios(sums, sizes, 499, rng)
        short = ((alone.low <= 0) & (alone.high >= 0)).sum()
        assert short < binom.ppf(0.0005, n_sets, covers)


@pytest.mark.parametrize("n_clusters", [8, 40])
def test_the_more_careful_of_both_answers_is_given(n_clusters):
    rng = np.random.default_rng(n_clusters)
    a = rng.normal(0.5, 1, (300, n_clusters))
    ones = np.ones_like(a)
    both, again = cluster_ratios(a, ones, 499, stream(1)), stream(1)
    subsets, studentized = (f(a, ones, 499, again) for f in (subset_ratios, studentized_ratios))
    assert (both.low == np.minimum(subsets.low, studentized.low)).all()
    assert (both.high == np.maximum(subsets.high, studentized.high)).all()
    assert (both.pvalue == np.maximum(subsets.pvalue, studentized.pvalue)).all()
    assert (both.low < subsets.low).any() and (both.low < studentized.low).any()
    # of symmetric scores hardly more careful than the exact one
    widening = np.median((both.high - both.low) / (subsets.high - subsets.low))
    assert widening < (1.3 if n_clusters == 8 else 1.06)


def test_clusters_that_carry_nothing_change_nothing():
    rng = np.random.default_rng(0)
    a, b = rng.exponential(1, (1, 8)), np.ones((1, 8))
    wide = [np.concatenate([each, np.zeros((1, 40))], axis=1) for each in (a, b)]
    one, other = studentized_ratios(a, b, 200, stream(0)), studentized_ratios(*wide, 200, stream(0))
    assert (one.low, one.high, one.pvalue) == (other.low, other.high, other.pvalue)


def test_scores_without_spread_leave_it_to_the_subsets():
    a, b = np.array([[1.0, 2, 3, 1, 2, 3]]), np.array([[1.0, 2, 3, 1, 2, 3]])
    both, exact = (f(a, b, 64, stream(0)) for f in (cluster_ratios, subset_ratios))
    assert both.pvalue[0] == exact.pvalue[0] == 1 / 64
    assert both.value[0] == both.low[0] == both.high[0] == 1


def test_what_subsets_cannot_say_is_not_said():
    nothing = cluster_ratios(np.zeros((1, 9)), np.ones((1, 9)), 99, stream(0))
    assert nothing.value[0] == 0 and np.isnan(nothing.pvalue[0])
    few = cluster_ratios(np.array([[1.0, 2, 3]]), np.ones((1, 3)), 999, stream(0))
    assert np.isnan(few.low[0]) and np.isnan(few.high[0])
