"""One sparse code per occurrence of a term, from the codes of its tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from medsae.io import UserError, progress
from medsae.polysemy.topk import read_rows, rows_of_occurrences

Pooling = Literal["last", "mean", "max"]

CODE = {
    "latent_ids": pl.List(pl.Int32),
    "z_values": pl.List(pl.Float32),
    "z_values_norm": pl.List(pl.Float32),
}


def pool_occurrences(
    occurrences: pl.DataFrame, topk: Sequence[str | Path], pooling: Pooling, k: int
) -> pl.DataFrame:
    """Add latent_ids, z_values and z_values_norm to located occurrences.

    ``last`` takes the code of an occurrence's last token; ``mean`` and ``max`` pool each latent
    over its tokens, where a latent that a token's code lacks counts as 0. The ``k`` largest
    by z are kept, largest first, equal ones by latent id. ``topk`` are the files that
    ``export_topk`` wrote, named by shard; only the rows of occurrences are kept of each.

    Raises ``UserError`` if an occurrence lies in a shard that is not among ``topk``.
    """
    missing = set(occurrences["shard"].unique()) - {Path(path).stem for path in topk}
    if missing:
        raise UserError(f"No top latents of shard {min(missing)}: run export_topk for it.")
    parts = [
        _pool_shard(occurrences.filter(pl.col("shard") == Path(path).stem), path, pooling, k)
        for path in progress(topk, "shards pooled")
    ]
    codes = pl.concat(parts)
    empty = [pl.col(name).fill_null(pl.lit([], dtype=kind)) for name, kind in CODE.items()]
    return (
        occurrences.join(codes, on="occurrence_id", how="left")
        .with_columns(empty)
        .sort("occurrence_id")
    )


def _pool_shard(
    occurrences: pl.DataFrame, path: str | Path, pooling: Pooling, k: int
) -> pl.DataFrame:
    if pooling == "last":
        occurrences = occurrences.with_columns(row_start=pl.col("row_end") - 1)
    rows = rows_of_occurrences(occurrences)
    if rows.is_empty():
        return pl.DataFrame(schema={"occurrence_id": occurrences.schema["occurrence_id"], **CODE})
    entries = rows.join(read_rows(path, rows["row"], list(CODE)), on="row").explode(list(CODE))
    entries = entries.drop_nulls("latent_ids")
    values = pl.col("z_values", "z_values_norm").cast(pl.Float64)
    if pooling == "mean":
        n_tokens = rows.group_by("occurrence_id").len("n_tokens")
        pooled = (
            # sorted, so that sums do not depend on the order in which threads deliver rows
            entries.sort("occurrence_id", "latent_ids", "row")
            .group_by("occurrence_id", "latent_ids", maintain_order=True)
            .agg(values.sum())
            .join(n_tokens, on="occurrence_id")
            .with_columns(pl.col("z_values", "z_values_norm") / pl.col("n_tokens"))
        )
    else:
        pooled = entries.group_by("occurrence_id", "latent_ids").agg(values.max())
    return (
        pooled.sort(["occurrence_id", "z_values", "latent_ids"], descending=[False, True, False])
        .group_by("occurrence_id", maintain_order=True)
        .agg(pl.col(list(CODE)).head(k))
        .cast(CODE)  # type: ignore[arg-type]
    )
