"""Interval and p of a ratio of sums over clusters, from studentised resamples of the clusters.

    θ = Σ_c a_c / Σ_c b_c,   se² = C / (C − 1) Σ_c (a_c − θ b_c)² / (Σ_c b_c)²,
    t* = (θ* − θ) / se*      over resamples of whole clusters
    interval: θ − t*_.975 se … θ − t*_.025 se          p of θ > 0: share of t* ≥ θ / se

(bootstrap-t; Efron and Tibshirani 1993, ch. 12.5). Unlike percentiles of θ* it knows of skew: where
a few clusters have much larger scores than the rest, se* moves with θ*, and the interval is the
longer on their side.
"""

import numpy as np
from numpy.typing import NDArray

from medsae.statistics.bootstrap import BLOCK, cluster_weights, percentile_interval
from medsae.statistics.subsets import RatioEstimates

ZERO = 1e-12


def studentized_ratios(
    numerators: NDArray[np.floating],
    denominators: NDArray[np.floating],
    n_resamples: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> RatioEstimates:
    """θ of each row of ``numerators`` and ``denominators`` [m, C], all under the same resamples.

    A resample whose se* is zero, such as one cluster drawn again and again, is left out; where that
    of the data is, interval and p are NaN.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (numerators, denominators))
    weights = cluster_weights(a.shape[1], n_resamples, rng)
    with np.errstate(invalid="ignore", divide="ignore"):
        value, error = (column[0] for column in _ratios(a, b, np.ones((1, a.shape[1]))))
        parts = [
            _ratios(a, b, weights[start : start + BLOCK]) for start in range(0, n_resamples, BLOCK)
        ]
        theta, errors = (np.concatenate(each) for each in zip(*parts, strict=True))
        t = (theta - value) / errors
        t[~np.isfinite(t)] = np.nan
        reaching = (t >= value / error).sum(0)
    n_defined = np.isfinite(t).sum(0)
    low, high = percentile_interval(np.where(n_defined, t, 0.0), level)
    pvalue = np.where(n_defined, (1 + reaching) / (1 + n_defined), np.nan)
    return RatioEstimates(value, value - high * error, value - low * error, pvalue)


def _ratios(
    a: NDArray[np.float64], b: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """θ and its standard error [n, m] under ``weights`` [n, C]; an error of zero is NaN."""
    n_clusters = a.shape[1]
    total = weights @ b.T
    theta = weights @ a.T / total
    squares = weights @ (a * a).T
    # Σ (a − θ b)², which rounding may make negative
    scores = squares - 2 * theta * (weights @ (a * b).T) + theta**2 * (weights @ (b * b).T)
    scores[scores <= ZERO * squares] = np.nan
    return theta, np.sqrt(scores * n_clusters / (n_clusters - 1)) / total
