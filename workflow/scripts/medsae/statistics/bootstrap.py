"""Cluster bootstrap: whole patients are drawn with replacement, never single occurrences."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK = 256

MIN_CLUSTERS = 5
"""Fewer patients than this have no interval: resampling them says nothing about others."""


def cluster_weights(
    n_clusters: int, n_resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """How often each cluster is drawn: [n_resamples, n_clusters], each row sums to n_clusters."""
    weights = np.empty((n_resamples, n_clusters))
    for start in range(0, n_resamples, BLOCK):
        n = min(BLOCK, n_resamples - start)
        draws = rng.integers(0, n_clusters, (n, n_clusters))
        draws += np.arange(n)[:, None] * n_clusters
        counts = np.bincount(draws.ravel(), minlength=n * n_clusters)
        weights[start : start + n] = counts.reshape(n, n_clusters)
    return weights


def percentile_interval(
    resampled: ArrayLike, level: float = 0.95, axis: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The central ``level`` of the resampled values along ``axis``; NaN resamples are left out.

    A statistic that could not be computed in more than half of the resamples gives NaN:
    such an interval would describe the lucky half only.
    """
    values = np.asarray(resampled, dtype=np.float64)
    defined = np.isfinite(values).mean(axis=axis)
    tails = [(1 - level) / 2, (1 + level) / 2]
    with np.errstate(invalid="ignore"):
        low, high = np.nanquantile(np.where(np.isfinite(values), values, np.nan), tails, axis=axis)
    return np.where(defined >= 0.5, low, np.nan), np.where(defined >= 0.5, high, np.nan)


def cluster_mean(
    values: NDArray[np.floating],
    cluster: NDArray[np.integer],
    n_resamples: int,
    rng: np.random.Generator,
) -> tuple[float, float | None, float | None]:
    """Mean of ``values`` [n] and its 95% interval over clusters (codes [n] from 0).

    The interval is None with fewer than `MIN_CLUSTERS` clusters.
    """
    sums, sizes = np.bincount(cluster, weights=values), np.bincount(cluster)
    mean = float(sums.sum() / sizes.sum())
    if len(sizes) < MIN_CLUSTERS:
        return mean, None, None
    weights = cluster_weights(len(sizes), n_resamples, rng)
    with np.errstate(invalid="ignore"):
        low, high = percentile_interval((weights @ sums) / (weights @ sizes))
    return mean, float(low), float(high)
