"""Interval and p of a ratio of sums over clusters, from studentised resamples of the clusters.

    θ = Σ_c a_c / Σ_c b_c,   se² = Σ_c (a_c − θ b_c)² / (Σ_c b_c)²,
    t* = (θ* − θ) / se*      over resamples of whole clusters
    interval: θ − t*_.975 se … θ − t*_.025 se          p of θ > 0: share of t* ≥ θ / se

(bootstrap-t; Efron and Tibshirani 1993, ch. 12.5). Unlike percentiles of θ* it knows of skew: where
a few clusters have much larger scores than the rest, se* moves with θ*, and the interval is the
longer on their side.
"""

import numpy as np
from numpy.typing import NDArray

from medsae.statistics.bootstrap import cluster_weights, percentile_interval
from medsae.statistics.subsets import RatioEstimates

ZERO = 1e-12


def studentized_ratios(
    numerators: NDArray[np.floating],
    denominators: NDArray[np.floating],
    n_resamples: int,
    rng: np.random.Generator,
) -> RatioEstimates:
    """θ of each row of ``numerators`` and ``denominators`` [m, C].

    Of the clusters of each row those with b > 0 are resampled. A resample whose se* is zero, such
    as one cluster drawn again and again, is left out; where that of the data is, interval and p
    are NaN.
    """
    rows = [
        _studentized(a[b > 0], b[b > 0], n_resamples, rng)
        for a, b in zip(numerators, denominators, strict=True)
    ]
    return RatioEstimates(*np.array(rows).reshape(-1, 4).T)


def _studentized(
    a: NDArray[np.floating], b: NDArray[np.floating], n_resamples: int, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """θ, low, high and p of one row."""
    if not len(a):
        return (np.nan,) * 4
    (value,), (error,) = _ratios(a, b, np.ones((1, len(a))))
    weights = cluster_weights(len(a), n_resamples, rng)
    theta, errors = _ratios(a, b, weights)
    t = (theta - value) / errors
    t = t[np.isfinite(t)]
    if not len(t) or np.isnan(error):
        return value, np.nan, np.nan, np.nan
    low, high = percentile_interval(t)
    pvalue = (1 + (t >= value / error).sum()) / (1 + len(t))
    return value, float(value - high * error), float(value - low * error), float(pvalue)


def _ratios(
    a: NDArray[np.floating], b: NDArray[np.floating], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """θ and its standard error [n] under ``weights`` [n, C]; an error of zero is NaN."""
    total = weights @ b
    theta = weights @ a / total
    squares = weights @ (a * a)
    # Σ (a − θ b)², which rounding may leave just off zero
    scores = squares - 2 * theta * (weights @ (a * b)) + theta**2 * (weights @ (b * b))
    scores[scores <= ZERO * squares] = np.nan
    return theta, np.sqrt(scores) / total
