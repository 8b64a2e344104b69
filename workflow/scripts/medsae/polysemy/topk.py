"""The largest latents of every token, and the published table of those at term occurrences."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from medsae.io import UserError, atomic_path, progress

if TYPE_CHECKING:
    from torch import Tensor

    from medsae.sae import SparseAutoencoder

LIST_COLUMNS = {
    "latent_ids": pa.list_(pa.int32()),
    "z_values": pa.list_(pa.float32()),
    "z_values_norm": pa.list_(pa.float32()),
}
"""Latents of a token, largest first, positive ones only; ``z_values_norm`` is
clip(z / scale, 0, 1) with the latent's calibrated scale."""

PUBLISHED_COLUMNS = (
    "doc_id",
    "layer",
    "model",
    "token_str",
    "lemma",
    "position",
    "batch_idx",
    "token_id",
    "K",
    "latent_ids_json",
    "z_values_json",
    "z_values_norm_json",
    "char_start",
    "char_end",
    "sense",
    "occurrence_id",
    "shard",
    "sae",
)
"""Columns of ``topk_latents.csv``: the published ones, then ours. ``position`` is the token's
index in its document, ``batch_idx`` its row in the shard."""

BLOCK_ROWS = 8192
GROUP_ENTRIES = 1 << 22
"""Latents of one Parquet row group, about 50 MB in memory."""


def export_topk(
    activations: str | Path,
    tokens: str | Path,
    sae: "SparseAutoencoder",
    k: int,
    path: str | Path,
) -> int:
    """Write the ``k`` largest latents of every token of a shard, beside its token columns.

    ``sae`` must be calibrated. Blocks of rows are streamed; nothing grows with the shard.
    Returns the number of rows. Raises ``UserError`` if the shard and the token table differ
    in length or the SAE has no scales.
    """
    from medsae.store import open_shard

    scale = sae.feature_scale
    if scale is None:
        raise UserError(f"The SAE behind {path} is not calibrated: use its calibrated checkpoint.")
    shard = open_shard(activations)
    with pq.ParquetFile(tokens) as table:
        if table.metadata.num_rows != shard.n_rows:
            raise UserError(
                f"{activations} has {shard.n_rows} rows for the {table.metadata.num_rows} tokens "
                f"of {tokens}: delete it and run again."
            )
        schema = table.schema_arrow
        for name, kind in LIST_COLUMNS.items():
            schema = schema.append(pa.field(name, kind))
        group = max(1, GROUP_ENTRIES // (k * BLOCK_ROWS))
        with (
            atomic_path(path) as temporary,
            pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
        ):
            pending: list[pa.Table] = []
            n_blocks = math.ceil(shard.n_rows / BLOCK_ROWS)
            start = 0
            blocks = table.iter_batches(batch_size=BLOCK_ROWS)
            for batch in progress(blocks, f"{Path(path).stem}: blocks of tokens", n_blocks):
                raw = shard.read(start, start + batch.num_rows)
                start += batch.num_rows
                columns = [*batch.columns, *_encode(raw, sae, scale, k)]
                pending.append(pa.Table.from_arrays(columns, schema=schema))
                if len(pending) == group:
                    writer.write_table(pa.concat_tables(pending))
                    pending = []
            if pending:
                writer.write_table(pa.concat_tables(pending))
    return shard.n_rows


def export_shards(
    activations: Sequence[str | Path],
    tokens: Sequence[str | Path],
    sae: "SparseAutoencoder",
    k: int,
    folder: str | Path,
) -> None:
    """`export_topk` of every shard to ``folder``/<shard>.parquet; files that are there stay.

    ``activations`` and ``tokens`` are files named by shard. Raises ``UserError`` if a shard
    has one without the other.
    """
    shards = {Path(path).stem: path for path in activations}
    tables = {Path(path).stem: path for path in tokens}
    if lone := sorted(shards.keys() ^ tables.keys()):
        raise UserError(
            f"{folder}: shard {lone[0]} has tokens or activations but not both: delete the "
            "folder of the tokens and run again."
        )
    for name, table in tables.items():
        if not (path := Path(folder) / f"{name}.parquet").exists():
            export_topk(shards[name], table, sae, k, path)


def _encode(raw: "Tensor", sae: "SparseAutoencoder", scale: "Tensor", k: int) -> list[pa.ListArray]:
    from medsae.sae import normalized_values

    values, indices = sae.encode(raw, k=k)
    scaled = normalized_values(values, indices, scale)
    positive = values > 0
    offsets = pa.array(np.append(0, positive.sum(1).cumsum(0).cpu().numpy()), pa.int32())
    parts = (indices[positive].int(), values[positive].float(), scaled[positive].float())
    return [pa.ListArray.from_arrays(offsets, pa.array(part.cpu().numpy())) for part in parts]


def rows_of_occurrences(occurrences: pl.DataFrame) -> pl.DataFrame:
    """One row per token of each occurrence: occurrence_id and row (UInt64) in its shard."""
    rows = pl.int_ranges("row_start", "row_end", dtype=pl.UInt64).alias("row")
    return occurrences.select("occurrence_id", rows).explode("row")


def read_rows(path: str | Path, rows: pl.Series, columns: Sequence[str]) -> pl.DataFrame:
    """The given ``rows`` (each once) of a Parquet file, with a column ``row`` (UInt64).

    The file is streamed: memory goes with the rows that are wanted.
    """
    wanted = pl.LazyFrame({"row": rows.cast(pl.UInt64).unique()})
    return (
        pl.scan_parquet(path)
        .select(columns)
        .with_row_index("row")
        .with_columns(pl.col("row").cast(pl.UInt64))
        .join(wanted, on="row", how="semi")
        .collect(engine="streaming")
        .sort("row")
    )


def write_topk_csv(
    occurrences: pl.DataFrame,
    topk: Sequence[str | Path],
    notes: str | Path,
    path: str | Path,
    *,
    k: int,
    model: str,
    layer: int,
    sae: str,
) -> int:
    """Write ``topk_latents.csv``: a row per token of each located occurrence.

    ``topk`` are the files that ``export_topk`` wrote, named by shard; ``notes`` is the notes
    table. Rows are in the order of shards, rows and occurrences. Returns their number.
    """
    n_rows = 0
    source = {"K": pl.lit(k), "model": pl.lit(model), "layer": pl.lit(layer), "sae": pl.lit(sae)}
    with atomic_path(path) as temporary, temporary.open("wb") as out:
        out.write((",".join(PUBLISHED_COLUMNS) + "\n").encode())
        for part in _occurrence_tokens(occurrences, topk, notes):
            part = part.with_columns(
                *(_json(pl.col(name)).alias(f"{name}_json") for name in LIST_COLUMNS), **source
            )
            part.select(PUBLISHED_COLUMNS).write_csv(out, include_header=False)
            n_rows += part.height
    return n_rows


def _occurrence_tokens(
    occurrences: pl.DataFrame, topk: Sequence[str | Path], notes: str | Path
) -> Iterator[pl.DataFrame]:
    columns = ["doc_id", "token_index", "token_id", "char_start", "char_end", *LIST_COLUMNS]
    for path in progress(topk, "shards searched for tokens of occurrences"):
        shard = Path(path).stem
        here = occurrences.filter(pl.col("shard") == shard)
        rows = rows_of_occurrences(here)
        if rows.is_empty():
            continue
        labels = here.select("occurrence_id", "lemma", "sense", "shard")
        tokens = read_rows(path, rows["row"], columns)
        texts = (
            pl.scan_parquet(notes)
            .filter(pl.col("shard") == shard)
            .select("doc_id", "text")
            .join(here.lazy().select("doc_id").unique(), on="doc_id", how="semi")
            .collect()
        )
        length = pl.col("char_end") - pl.col("char_start")
        yield (
            rows.join(tokens, on="row")
            .join(labels, on="occurrence_id")
            .join(texts, on="doc_id")
            .with_columns(pl.col("text").str.slice(pl.col("char_start"), length).alias("token_str"))
            .rename({"token_index": "position", "row": "batch_idx"})
            .sort("batch_idx", "occurrence_id")
        )


def _json(column: pl.Expr) -> pl.Expr:
    return pl.format("[{}]", column.list.eval(pl.element().cast(pl.String)).list.join(", "))
