"""Agreement and proportions: Cohen's κ (1960), Wilson's interval (1927), McNemar's exact test."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, norm


def cohen_kappa(confusion: ArrayLike) -> NDArray[np.float64]:
    """κ = (p_o − p_e) / (1 − p_e) of confusion tables [..., S, S]; NaN where p_e = 1 or empty."""
    table = np.asarray(confusion, dtype=np.float64)
    total = table.sum((-2, -1))
    observed = np.trace(table, axis1=-2, axis2=-1)
    expected = (table.sum(-1) * table.sum(-2)).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (observed * total - expected) / (total**2 - expected)


def wilson_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
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


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p of McNemar's test from the two discordant counts; 1 if both are 0."""
    discordant = only_first + only_second
    return 1.0 if discordant == 0 else float(binomtest(only_first, discordant, 0.5).pvalue)
