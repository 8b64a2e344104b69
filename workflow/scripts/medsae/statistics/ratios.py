"""Interval and p of a ratio of sums over clusters that hold for few clusters and for skewed ones.

Two ways are asked, and the more careful answer is given: the interval spans both, p is the larger.

    subsets       exact for symmetric scores, however few the clusters
    studentised   knows of skew, but is only right with many clusters

Share of 95% intervals that cover, and of p ≤ .05 where θ = 0, with 8, 16 and 40 clusters of unequal
size (2,000 simulated sets each; bounds of them in ``tests/statistics/test_ratios.py``):

    scores                   subsets alone                 both
    normal                   .95 .96 .95   .06 .04 .06     .96 .96 .96   .05 .04 .05
    exponential, tail right  .90 .92 .93   .01 .02 .03     .94 .95 .95   .01 .02 .03
                 tail left   .90 .92 .93   .14 .11 .09     .94 .95 .95   .09 .07 .07
    lognormal,   tail right  .85 .84 .88   .01 .01 .01     .91 .90 .93   .01 .01 .01
    σ = 1        tail left   .85 .84 .88   .19 .21 .16     .91 .90 .93   .13 .14 .10
"""

import numpy as np
from numpy.typing import NDArray

from medsae.statistics.studentized import studentized_ratios
from medsae.statistics.subsets import RatioEstimates, subset_ratios


def cluster_ratios(
    numerators: NDArray[np.floating],
    denominators: NDArray[np.floating],
    n_resamples: int,
    rng: np.random.Generator,
) -> RatioEstimates:
    """θ = Σ_c a_c / Σ_c b_c of each row of ``numerators`` and ``denominators`` [m, C], b ≥ 0.

    An end that subsets leave open, as those of very few clusters do, stays open (NaN).
    """
    both = (
        subset_ratios(numerators, denominators, n_resamples, rng),
        studentized_ratios(numerators, denominators, n_resamples, rng),
    )
    exact, other = both
    return RatioEstimates(
        exact.value,
        np.where(np.isnan(exact.low), np.nan, np.fmin(exact.low, other.low)),
        np.where(np.isnan(exact.high), np.nan, np.fmax(exact.high, other.high)),
        np.where(np.isnan(exact.pvalue), np.nan, np.fmax(exact.pvalue, other.pvalue)),
    )
