"""Check the notes, split them by patient and cut them into shards.

Notes are put into one seeded order that depends on their ids alone, not on the order of
rows; validation patients come off that order, and shards are contiguous runs of it with
nearly equal numbers of characters. Read in the order of the shards' names, the notes are
therefore the same sequence whatever the number of shards.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from medsae.io import UserError, atomic_path
from medsae.notes.read import NoteColumns, read_notes

SHOWN = 5


@dataclass(frozen=True)
class NotesSummary:
    """What was read and how it was divided."""

    n_notes: int
    n_patients: int
    patient_ids: str  # "given" or "one per note"
    n_rows_in_file: int
    n_dropped_empty: int
    n_train: int
    n_val: int
    n_characters: int

    def as_dict(self) -> dict[str, Any]:
        """The summary as JSON holds it."""
        return asdict(self)


def prepare_notes(
    path: str | Path,
    columns: NoteColumns,
    *,
    seed: int,
    val_fraction: float,
    shards: int,
    val_shards: int,
    max_rows: int | None = None,
    drop_empty_text: bool = False,
) -> tuple[pl.DataFrame, NotesSummary]:
    """Read and check ``path``; return the notes table and its summary.

    The table has columns doc_id, patient_id, text, split ("train" or "val"), shard
    (e.g. "train-00000") and row (i64, 1-based row of the source file), sorted by shard.

    Raises ``UserError`` for anything ``read_notes`` refuses, for null or duplicate ids,
    null or empty texts (unless dropped) and for more shards than notes.
    """
    table = read_notes(path, columns)
    n_rows = table.height
    _check_ids(path, columns, table)
    table, n_dropped = _check_texts(path, columns, table, drop_empty_text)
    table = _in_seeded_order(table, seed)
    if max_rows is not None:
        table = table.head(max_rows)
    table = _split_by_patient(path, table, val_fraction)
    parts = [
        _cut(part, split, count)
        for split, count in (("train", shards), ("val", val_shards))
        for part in (table.filter(pl.col("split") == split),)
    ]
    notes = pl.concat(parts).select("doc_id", "patient_id", "text", "split", "shard", "row")
    summary = NotesSummary(
        n_notes=notes.height,
        n_patients=notes["patient_id"].n_unique(),
        patient_ids="one per note" if columns.patient_id is None else "given",
        n_rows_in_file=n_rows,
        n_dropped_empty=n_dropped,
        n_train=parts[0].height,
        n_val=parts[1].height,
        n_characters=int(notes["text"].str.len_chars().sum()),
    )
    return notes, summary


def write_notes(path: str | Path, notes: pl.DataFrame) -> None:
    """Write the notes table atomically, one row group per shard, so that a job reads its own."""
    with atomic_path(path) as temporary:
        schema = notes.head(0).to_arrow().schema
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for (_,), part in notes.group_by(["shard"], maintain_order=True):
                writer.write_table(part.to_arrow().cast(schema), row_group_size=part.height)


def scan_notes(path: str | Path, shard: str | None = None) -> pl.LazyFrame:
    """The notes table, or one shard of it, lazily."""
    notes = pl.scan_parquet(path)
    return notes if shard is None else notes.filter(pl.col("shard") == shard)


def _rows(table: pl.DataFrame) -> str:
    rows = table["row"].head(SHOWN).to_list()
    more = f" and {table.height - SHOWN} more" if table.height > SHOWN else ""
    return f"row{'s' if table.height > 1 else ''} {', '.join(map(str, rows))}{more}"


def _check_ids(path: str | Path, columns: NoteColumns, table: pl.DataFrame) -> None:
    named = {"doc_id": columns.doc_id, "patient_id": columns.patient_id or columns.doc_id}
    for column, name in named.items():
        missing = table.filter(pl.col(column).fill_null("").str.strip_chars() == "")
        if missing.height:
            raise UserError(
                f"notes file {path}, {_rows(missing)}: column '{name}' is empty; "
                "give every note an id"
            )
    duplicates = table.filter(pl.col("doc_id").is_duplicated()).sort("doc_id", "row")
    if duplicates.height:
        first = duplicates.filter(pl.col("doc_id") == duplicates["doc_id"][0])
        n_ids = duplicates["doc_id"].n_unique()
        raise UserError(
            f"notes file {path}: {n_ids} id(s) of column '{columns.doc_id}' occur more than once, "
            f"e.g. '{first['doc_id'][0]}' in {_rows(first)}; make the ids unique"
        )


def _check_texts(
    path: str | Path, columns: NoteColumns, table: pl.DataFrame, drop: bool
) -> tuple[pl.DataFrame, int]:
    is_empty = pl.col("text").fill_null("").str.strip_chars() == ""
    empty = table.filter(is_empty)
    if empty.height and not drop:
        raise UserError(
            f"notes file {path}, {_rows(empty)}: column '{columns.text}' has no text; remove "
            "these rows or set corpus.drop_empty_text: true"
        )
    kept = table.filter(~is_empty)
    if kept.is_empty():
        raise UserError(f"notes file {path}: no row has text in column '{columns.text}'")
    return kept, empty.height


def _in_seeded_order(table: pl.DataFrame, seed: int) -> pl.DataFrame:
    order = np.random.default_rng(seed).permutation(table.height)
    return table.sort("doc_id")[order]


def _split_by_patient(path: str | Path, table: pl.DataFrame, val_fraction: float) -> pl.DataFrame:
    """Give whole patients, last in the seeded order first, to validation."""
    patients = table.group_by("patient_id", maintain_order=True).len().reverse()
    if patients.height < 2:
        raise UserError(
            f"notes file {path} holds the notes of one patient: validation needs at least two"
        )
    held_out = patients["len"].cum_sum().to_numpy() <= val_fraction * table.height
    held_out[0] = True
    held_out[-1] = False
    validation = patients["patient_id"].filter(pl.Series(held_out))
    is_val = pl.col("patient_id").is_in(validation.implode())
    return table.with_columns(
        pl.when(is_val).then(pl.lit("val")).otherwise(pl.lit("train")).alias("split")
    )


def _cut(notes: pl.DataFrame, split: str, n_shards: int) -> pl.DataFrame:
    if notes.height < n_shards:
        key = "shards" if split == "train" else "val_shards"
        raise UserError(
            f"corpus.{key} is {n_shards}, but the {split} split has {notes.height} notes: lower it"
        )
    ends = notes["text"].str.len_chars().cast(pl.Int64).cum_sum().to_numpy()
    step = np.arange(1, n_shards)
    cuts = np.searchsorted(ends, ends[-1] * step / n_shards) + 1
    # Strictly increasing and early enough: every shard gets a note, however unequal the lengths.
    cuts = np.maximum.accumulate(cuts - step) + step
    cuts = np.minimum(cuts, notes.height - n_shards + step)
    shard = np.searchsorted(cuts, np.arange(notes.height), side="right")
    return notes.with_columns(
        pl.Series("shard", [f"{split}-{number:05d}" for number in shard], dtype=pl.String)
    )
