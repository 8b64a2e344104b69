"""What the figures and the summary share about the tables they read.

A quantity ``x`` comes with its 95% interval ``x_low``, ``x_high``. What could not be
estimated is null, with the reason in ``reason``.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medsae.io import atomic_path
from medsae.polysemy.jaccard_pairs import MODELLED_K

ALPHA = 0.05
"""False discovery rate at which an effect counts as found."""

HEADLINE_K = MODELLED_K
"""Overlap of this many latents is what the headline is about, or of the nearest number."""

TEXT = frozenset(
    [
        "model",
        "sae",
        "lemma",
        "kind",
        "pooling",
        "group",
        "sense",
        "sense1",
        "sense2",
        "label",
        "method",
        "reason",
        "response",
        "contrast",
        "specification",
        "dropped",
        "note",
        "messages",
        "matching",
        "word",
        "term",
        "formula",
        "matched_controls",
        "status",
    ]
)
"""Columns that stay text when a table holds nothing in them."""

FLAGS = frozenset(["discovered", "confirmed", "chosen", "converged", "singular"])
"""Columns of yes and no."""


def read(path: str | Path) -> pl.DataFrame:
    """The CSV or Parquet table at ``path``, typed even where a column holds nothing."""
    source = Path(path)
    if source.suffix == ".parquet":
        return pl.read_parquet(source)
    table = pl.read_csv(source, infer_schema_length=None)
    empty = [
        name
        for name, dtype in table.schema.items()
        if dtype == pl.String and name not in TEXT and table[name].null_count() == table.height
    ]
    return table.with_columns(
        pl.col(name).cast(pl.Boolean if name in FLAGS else pl.Float64) for name in empty
    )


def read_all(paths: Iterable[str | Path]) -> pl.DataFrame:
    """The rows of the tables at ``paths``, one below the other."""
    return pl.concat([read(path) for path in paths], how="diagonal_relaxed")


def write(table: pl.DataFrame, path: str | Path) -> None:
    """Write ``table`` as CSV, whole or not at all."""
    with atomic_path(path) as temporary:
        table.write_csv(temporary)


def place(model: str, layer: int | str, sae: str) -> str:
    """How figures and sentences name an SAE."""
    return f"{model}, layer {layer}, {sae}"


def at_headline_k(jaccard: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The rows of ``jaccard_at_k.csv`` whose k is nearest to `HEADLINE_K`, and that k."""
    if jaccard.is_empty():
        return jaccard, HEADLINE_K
    k = min(jaccard["k"].unique().to_list(), key=lambda k: (abs(k - HEADLINE_K), k))
    return jaccard.filter(pl.col("k") == k), k


def significant(effect: str, q: str = "qvalue") -> pl.Expr:
    """Whether ``effect`` is above zero: q below `ALPHA` and an interval that excludes 0."""
    return ((pl.col(q) < ALPHA) & (pl.col(f"{effect}_low") > 0)).fill_null(False)


def beyond_chance() -> pl.Expr:
    """Whether Δ is larger than 95% of random cuts of terms with one meaning; null if not known."""
    return pl.col("delta").cast(pl.Float64) > pl.col("chance_delta_95").cast(pl.Float64)


def interval_columns(table: pl.DataFrame, name: str) -> NDArray[np.float64]:
    """The columns ``name``, ``name_low``, ``name_high`` as float64 [3, n], NaN where null."""
    columns = [pl.col(name), pl.col(f"{name}_low"), pl.col(f"{name}_high")]
    return table.select(column.cast(pl.Float64) for column in columns).to_numpy().T


def number(value: Any) -> float:
    """A polars aggregate as a float; NaN for null."""
    return float("nan") if value is None else float(value)
