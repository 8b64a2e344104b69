"""What a folder of activations holds: ``metadata.json``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from medsae.io import UserError, progress
from medsae.store import open_shard

SAMPLED_ROWS = 4096


def describe_activations(
    tokens: Sequence[str | Path], activations: Sequence[str | Path], about: dict[str, Any]
) -> dict[str, Any]:
    """Metadata of the activation shards, ready for JSON.

    ``tokens`` and ``activations`` are the files of the same shards, in order; ``about`` (model,
    layer, seed, …) comes first in the result. Norms are of an evenly spaced sample of each
    shard's rows, in the units of the residual stream.

    Raises ``UserError`` if a shard and its token table differ in length.
    """
    shards = {}
    splits: dict[str, dict[str, int]] = {}
    d_model = store_dtype = None
    for token_path, path in progress(
        list(zip(tokens, activations, strict=True)), "shards described"
    ):
        shard, counts = open_shard(path), _counts(token_path)
        if shard.n_rows != counts["tokens"]:
            raise UserError(
                f"{path} has {shard.n_rows} rows for the {counts['tokens']} tokens of "
                f"{token_path}: delete it and run again."
            )
        d_model, store_dtype = shard.n_columns, str(shard.dtype).removeprefix("torch.")
        name = Path(path).stem
        shards[name] = counts | _norms(path)
        split = splits.setdefault(name.partition("-")[0], dict.fromkeys(counts, 0))
        for key, count in counts.items():
            split[key] += count
    return about | {
        "d_model": d_model,
        "store_dtype": store_dtype,
        "normalization": "none: raw residual stream",
        "splits": splits,
        "shards": shards,
    }


def shards_of(metadata: str | Path, split: str = "") -> list[Path]:
    """The shards that ``metadata.json`` at that path describes, in order: of one split, or all.

    Raises ``UserError`` if one has been deleted since, which Snakemake does not see.
    """
    path = Path(metadata)
    names = json.loads(path.read_text(encoding="utf-8"))["shards"]
    shards = [path.with_name(f"{name}.safetensors") for name in names if name.startswith(split)]
    if lost := [shard for shard in shards if not shard.exists()]:
        raise UserError(
            f"{lost[0]} has been deleted: delete {path} too and run again, and both are made anew."
        )
    return shards


def _counts(path: str | Path) -> dict[str, int]:
    counts = pl.scan_parquet(path).select(
        tokens=pl.len(), documents=(pl.col("token_index") == 0).sum()
    )
    return counts.collect().cast(pl.Int64).to_dicts()[0]


def _norms(path: str | Path) -> dict[str, float]:
    shard = open_shard(path)
    if not shard.n_rows:
        return {}
    rows = torch.linspace(0, shard.n_rows - 1, min(shard.n_rows, SAMPLED_ROWS)).long()
    norms = shard.rows(rows).float().norm(dim=1).numpy()
    return {
        "norm_median": float(np.median(norms)),
        "norm_p99": float(np.quantile(norms, 0.99)),
        "norm_max": float(norms.max()),
    }
