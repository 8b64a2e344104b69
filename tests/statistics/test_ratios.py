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
        spread = ((a - theta * b) ** 2).sum() * len(a) / (len(a) - 1)
        return theta, np.sqrt(spread) / b.sum()

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


SYMMETRIC, TO_THE_RIGHT, TO_THE_LEFT = "symmetric", "tail to the right", "tail to the left"


def scores(kind, n_clusters, sigma, rng):
    if kind == SYMMETRIC:
        return rng.normal(size=n_clusters)
    skewed = rng.lognormal(0, sigma, n_clusters) - np.exp(sigma**2 / 2)
    return skewed if kind == TO_THE_RIGHT else -skewed


@pytest.mark.parametrize("n_clusters", [8, 16, 40])
@pytest.mark.parametrize(
    ("kind", "sigma", "covers", "level"),
    [
        (SYMMETRIC, 0.0, 0.95, 0.05),
        (TO_THE_RIGHT, 0.5, 0.93, 0.05),
        (TO_THE_LEFT, 0.5, 0.93, 0.09),
        (TO_THE_RIGHT, 1.0, 0.90, 0.05),
        (TO_THE_LEFT, 1.0, 0.90, 0.13),
    ],
)
def test_intervals_cover_and_p_holds_its_level_as_said(n_clusters, kind, sigma, covers, level):
    """At least ``covers`` of 95% intervals, at most ``level`` of p at .05, where θ = 0."""
    n_sets, covered, rejected = 500, 0, 0
    rng = np.random.default_rng([n_clusters, int(10 * sigma), len(kind)])
    a = np.stack([scores(kind, n_clusters, sigma, rng) for _ in range(n_sets)])
    sizes = rng.integers(1, 6, a.shape).astype(float)
    found = cluster_ratios(a * sizes, sizes, 499, rng)
    covered = (found.low <= 0) & (found.high >= 0)
    rejected = found.pvalue <= 0.05
    assert covered.sum() >= binom.ppf(0.0005, n_sets, covers)
    assert rejected.sum() <= binom.ppf(0.9995, n_sets, level)


@pytest.mark.parametrize("n_clusters", [8, 40])
def test_of_symmetric_scores_the_answer_is_hardly_more_careful_than_the_exact_one(n_clusters):
    rng = np.random.default_rng(n_clusters)
    a = rng.normal(0.5, 1, (300, n_clusters))
    ones = np.ones_like(a)
    both, exact = cluster_ratios(a, ones, 499, stream(1)), subset_ratios(a, ones, 499, stream(1))
    assert (both.low <= exact.low).all() and (both.high >= exact.high).all()
    assert (both.pvalue >= exact.pvalue).all()
    widening = np.median((both.high - both.low) / (exact.high - exact.low))
    assert widening < (1.3 if n_clusters == 8 else 1.06)


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
