"""Agreement and proportions: Cohen's κ (1960), Wilson's interval (1927), McNemar's exact test."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, norm, t


def cohen_kappa(confusion: ArrayLike) -> NDArray[np.float64]:
    """κ = (p_o − p_e) / (1 − p_e) of confusion tables [..., S, S]; NaN where p_e = 1 or empty."""
    table = np.asarray(confusion, dtype=np.float64)
    total = table.sum((-2, -1))
    observed = np.trace(table, axis1=-2, axis2=-1)
    expected = (table.sum(-1) * table.sum(-2)).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (observed * total - expected) / (total**2 - expected)


def wilson_interval(hits: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of hits / n; (NaN, NaN) for n = 0."""
    if n == 0:
        return float("nan"), float("nan")
    z = norm.ppf(0.5 + level / 2)
    share = hits / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # rounding must not push a bound past the share it belongs to
    low = 0.0 if hits == 0 else float(centre - half)
    high = 1.0 if hits == n else float(centre + half)
    return low, high


def clustered_share_interval(
    share: float, standard_error: float, n_clusters: int, level: float = 0.95
) -> tuple[float, float]:
    """Wilson's interval of a share, or a mean of values in [0, 1], of units that come in clusters.

    Of as many independent units n as give the ``standard_error`` between clusters, corrected for
    the few clusters that it is known from (Korn and Graubard 1998, Survey Methodology 24):
    n = share (1 − share) / se² · (z / t_{C−1})². Where all units agree, and se says nothing, each
    cluster counts as one. (NaN, NaN) for fewer than two clusters.
    """
    if n_clusters < 2:
        return float("nan"), float("nan")
    tail = 0.5 + level / 2
    n = float(n_clusters)
    if 0 < share < 1 and standard_error > 0:
        n = share * (1 - share) / standard_error**2
    n *= (norm.ppf(tail) / t.ppf(tail, n_clusters - 1)) ** 2
    return wilson_interval(share * n, n, level)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p of McNemar's test from the two discordant counts; 1 if both are 0."""
    discordant = only_first + only_second
    return 1.0 if discordant == 0 else float(binomtest(only_first, discordant, 0.5).pvalue)
