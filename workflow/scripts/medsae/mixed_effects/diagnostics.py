"""Does a mixed-effects model fit? Its residuals and random effects beside what they should be.

Quantile residuals (see fit.R) are standard normal where the model holds, whatever its family;
random effects are taken for normal by every model. Both are given with the normal quantile of
their rank, for a quantile plot, residuals also with the fitted value.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import norm

from medsae.mixed_effects.bridge import Fit
from medsae.statistics import stream

MAX_POINTS = 1_000
"""Residuals of a fit, and levels of a grouping factor, that are kept to be drawn."""

RESIDUAL = "residual"

DIAGNOSTICS = {
    "response": pl.String,
    "specification": pl.String,
    "group": pl.String,
    "fitted": pl.Float64,
    "value": pl.Float64,
    "quantile": pl.Float64,
}
"""``group``: "residual", or the random effect; ``fitted``: of residuals only; ``value``: the
residual, or the random effect over the standard deviation of its group."""


def diagnostic_rows(about: dict[str, str], fit: Fit, seed: int) -> pl.DataFrame:
    """Rows of the table of diagnostics for one fit; none where it was not estimable.

    Of many points a random part is kept, each with its quantile among all.
    """
    parts = [fit.residuals.select("fitted", pl.col("residual").alias("value"))]
    names = [RESIDUAL]
    for (name,), group in fit.random_effects.group_by("group", maintain_order=True):
        deviation = pl.col("value").std()
        names.append(str(name))
        parts.append(
            group.filter(deviation > 0).select(
                pl.lit(None, pl.Float64).alias("fitted"), pl.col("value") / deviation
            )
        )
    rows = []
    for name, part in zip(names, parts, strict=True):
        part = part.drop_nulls("value")
        kept = stream(seed, "diagnostics", *about.values(), name).permutation(part.height)
        part = part.with_columns(pl.Series("quantile", normal_quantiles(part["value"].to_numpy())))
        rows.append(part[np.sort(kept[:MAX_POINTS])].with_columns(pl.lit(name).alias("group")))
    whole = pl.concat(rows).with_columns(pl.lit(v).alias(n) for n, v in about.items())
    return whole.select(pl.col(name).cast(dtype) for name, dtype in DIAGNOSTICS.items())


def normal_quantiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The standard normal quantile of each value's rank: Φ⁻¹((rank − ½) / n)."""
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return norm.ppf((ranks + 0.5) / max(len(values), 1))


def distance_from_normal(residuals: pl.Series) -> float | None:
    """Kolmogorov–Smirnov distance of ``residuals`` from the standard normal; None if empty."""
    values = np.sort(residuals.drop_nulls().to_numpy())
    if not len(values):
        return None
    expected, n = norm.cdf(values), len(values)
    above, below = np.arange(1, n + 1) / n - expected, expected - np.arange(n) / n
    return float(max(above.max(), below.max()))
