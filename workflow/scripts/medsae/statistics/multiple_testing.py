"""Adjusted p-values: Benjamini and Hochberg (1995), Holm (1979). NaN in, NaN out."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def benjamini_hochberg(pvalues: ArrayLike) -> NDArray[np.float64]:
    """q-values: q_(i) = min over j ≥ i of p_(j) · m / j, for the m tests that are not NaN."""
    p = _checked(pvalues)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1].clip(max=1)
    return adjusted


def holm(pvalues: ArrayLike) -> NDArray[np.float64]:
    """Family-wise p: p̃_(i) = max over j ≤ i of p_(j) · (m − j + 1), at most 1."""
    p = _checked(pvalues)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    scaled = p[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.maximum.accumulate(scaled).clip(max=1)
    return adjusted


def _checked(pvalues: ArrayLike) -> NDArray[np.float64]:
    p = np.asarray(pvalues, dtype=np.float64)
    if p.ndim != 1:
        raise ValueError(f"p-values must be one-dimensional, not {p.ndim}-dimensional")
    if ((p < 0) | (p > 1)).any():
        raise ValueError("p-values must lie between 0 and 1")
    return p
