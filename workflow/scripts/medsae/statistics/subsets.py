"""Interval and p of a ratio of sums over clusters, from random subsets of the clusters.

    θ = Σ_c a_c / Σ_c b_c, b_c ≥ 0;   θ_S: the same over a subset S that each cluster joins
                                      with probability ½

Where the scores a_c − θ b_c are independent and symmetric about 0, the true θ is as likely to lie
between any two neighbours of the ordered θ_S (Hartigan 1969, JASA 64, "typical values"), so the
central 95% of them are a 95% interval. The same as a test: among all flips of the signs of the
scores a_c − β b_c (Hemerik, Goeman and Finos 2020, JRSS B 82), those that reach the observed sum
are those with θ_S ≤ β. So interval and p never contradict each other, and dependence within a
cluster, whatever it is, stays within its score. With few clusters, or few of one kind, the
interval is wider than that of a bootstrap, whose coverage falls short there.

Skewed scores break the premise: the truth then lies beyond the end of the long tail, and p is too
small where that tail is to the left (``medsae.statistics.ratios``).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medsae.statistics.permutation import pvalue_greater

BLOCK = 1024
"""Subsets drawn at once; fixed, because the random stream depends on it."""

TIE = 1e-12
TAIL = 0.025  # beyond either end of an interval

MAX_ENUMERATED = 20
"""Clusters whose subsets are never all listed, however many are asked for."""


@dataclass(frozen=True)
class RatioEstimates:
    """Each [m]: θ, its interval (NaN where it has no end), p of θ > 0 (NaN where a ≡ 0)."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    pvalue: NDArray[np.float64]


def subset_ratios(
    numerators: NDArray[np.floating],
    denominators: NDArray[np.floating],
    n_subsets: int,
    rng: np.random.Generator,
) -> RatioEstimates:
    """θ of each row of ``numerators`` and ``denominators`` [m, C], all under the same subsets.

    All 2^C subsets where there are no more than ``n_subsets``, else as many random ones.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (numerators, denominators))
    sums = [np.stack([joins @ a.T, joins @ b.T]) for joins in _subsets(a.shape[1], n_subsets, rng)]
    a_of, b_of = np.concatenate(sums, axis=1)  # [number of subsets, m] each
    with np.errstate(invalid="ignore", divide="ignore"):
        theta = a_of / b_of
        value = a.sum(1) / b.sum(1)
    # a subset without any b says nothing: it counts as beyond either end
    defined = b_of > 0
    low = np.quantile(np.where(defined, theta, -np.inf), TAIL, axis=0, method="inverted_cdf")
    high = -np.quantile(np.where(defined, -theta, -np.inf), TAIL, axis=0, method="inverted_cdf")
    size = np.abs(a).sum(1)
    reaching = (a_of <= TIE * size).sum(0)
    # all subsets include the empty one, which is the data as observed
    complete = len(a_of) == 2 ** a.shape[1]
    pvalue = reaching / len(a_of) if complete else pvalue_greater(reaching, n_subsets)
    return RatioEstimates(
        value,
        np.where(np.isfinite(low), low, np.nan),
        np.where(np.isfinite(high), high, np.nan),
        np.where(size > 0, pvalue, np.nan),
    )


def _subsets(
    n_clusters: int, n_subsets: int, rng: np.random.Generator
) -> Iterator[NDArray[np.bool_]]:
    """Blocks [b, C] of subsets, as which clusters join."""
    if n_clusters < MAX_ENUMERATED and 2**n_clusters <= n_subsets:
        yield (np.arange(2**n_clusters)[:, None] >> np.arange(n_clusters)) % 2 == 1
        return
    for start in range(0, n_subsets, BLOCK):
        yield rng.random((min(BLOCK, n_subsets - start), n_clusters)) < 0.5
