"""Means over terms, with their intervals."""

import numpy as np
import polars as pl
from scipy import stats


def mean_over_terms(name: str, values: pl.Series) -> dict[str, float | None]:
    """Mean of ``values`` [terms] with its 95% Student interval; null for fewer than two."""
    x = values.drop_nulls().to_numpy().astype(float)
    if len(x) < 2:
        return {name: float(x[0]) if len(x) else None, f"{name}_low": None, f"{name}_high": None}
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return {name: x.mean(), f"{name}_low": x.mean() - half, f"{name}_high": x.mean() + half}
