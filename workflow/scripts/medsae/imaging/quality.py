"""How well an SAE holds on each split: variance unexplained, active latents, dead ones.

What it learned on the training scans it must also do on others. With few scans, or others of
another kind, it does not (domain shift): FVU rises, and the threshold that stands in for
BatchTopK at inference lets another number of latents through. So both are told for every split.
Where validation has rows enough it sets the threshold, and its own L0 is k whatever it shows.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from medsae.imaging.columns import CHOOSING, SCAN, SPLIT, SPLITS
from medsae.sae import SparseAutoencoder
from medsae.sae.validate import validate
from medsae.store import ActivationStore

QUALITY = {
    "split": pl.String,
    "n_rows": pl.Int64,  # slices, or patch tokens
    "fvu": pl.Float64,  # about the split's own mean
    "nmse": pl.Float64,
    "l0": pl.Float64,
    "dead_fraction": pl.Float64,  # of latents, that fire on no row of the split
    "n_varying": pl.Int64,  # latents that fire on some rows of the split and not on others
}

DEAD = 0.95
"""Share of latents without a training slice from which a dictionary has collapsed."""


def split_quality(slices: pl.DataFrame, folder: str | Path, sae: SparseAutoencoder) -> pl.DataFrame:
    """``sae_quality.csv``: one row per split that has slices; shards ``folder/{scan}``."""
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        scans = slices.filter(pl.col(SPLIT) == split)[SCAN].unique(maintain_order=True)
        if not len(scans):
            continue
        store = ActivationStore([Path(folder) / f"{scan}.safetensors" for scan in scans])
        found = validate(sae, store, store.n_rows)
        varying = (found.firings > 0) & (found.firings < found.n_tokens)
        rows.append(
            {
                "split": split,
                "n_rows": found.n_tokens,
                "fvu": found.quality.fvu,
                "nmse": found.quality.nmse,
                "l0": found.quality.l0,
                "dead_fraction": found.dead_fraction,
                "n_varying": int(varying.sum()),
            }
        )
    return pl.DataFrame(rows, schema=QUALITY)


def read_quality(path: str | Path) -> dict[str, dict[str, Any]]:
    """``sae_quality.csv`` by split."""
    table = pl.read_csv(path, schema_overrides=QUALITY)
    return {row["split"]: row for row in table.iter_rows(named=True)}


def collapse(quality: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Why the features of an SAE mean nothing, whatever is measured on them; None if they may."""
    fvu = quality[CHOOSING]["fvu"]
    if fvu is None:
        return "collapsed: the unexplained variance of the validation slices is not defined"
    if not fvu < 1:  # NaN too
        return (
            f"collapsed: the mean of the validation slices reconstructs them better (FVU {fvu:.2f})"
        )
    dead = quality["train"]["dead_fraction"]
    if dead > DEAD:
        return f"collapsed: {dead:.0%} of its latents fire on no training slice"
    if not quality[CHOOSING]["n_varying"]:
        return "collapsed: its latents fire on all validation slices or on none"
    return None
