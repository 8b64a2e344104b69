"""Where spans of characters lie among the tokens.

A token belongs to a span when their character ranges overlap in at least one character
that is not white space at the span's edges: ' renal' belongs to 'renal', and does not
belong to 'acute ' before it. Tokens of a span are consecutive, so a span becomes a range
of rows, found by binary search in (document, character) order.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from medsae.activations.columns import ALIGNED_SPANS, LOCATED
from medsae.io import atomic_path, progress

PER_DOCUMENT = 1 << 32
"""Characters of a document stay below this, so that document and character fit in one key."""

logger = logging.getLogger("medsae")


@dataclass(frozen=True)
class TokenPlaces:
    """The token table of one shard, in search order."""

    documents: pl.DataFrame
    """doc_id, document (its number), first_row."""
    starts: np.ndarray
    """int64 [n_tokens], document · 2³² + char_start, ascending."""
    stops: np.ndarray
    """int64 [n_tokens], document · 2³² + char_end, ascending."""

    @classmethod
    def read(cls, path: str | Path) -> "TokenPlaces":
        """Read the columns that alignment needs of a token table."""
        table = pl.read_parquet(path, columns=["token_index", "char_start", "char_end"])
        is_first = (table["token_index"] == 0).to_numpy()
        first_rows = np.flatnonzero(is_first)
        names = pl.scan_parquet(path).filter(pl.col("token_index") == 0).select("doc_id").collect()
        documents = names.with_row_index("document").with_columns(
            pl.col("document").cast(pl.Int64), pl.Series("first_row", first_rows, pl.Int64)
        )
        offset = (np.cumsum(is_first) - 1) * PER_DOCUMENT
        return cls(
            documents,
            offset + table["char_start"].to_numpy().astype(np.int64),
            offset + table["char_end"].to_numpy().astype(np.int64),
        )


def align_ranges(
    places: TokenPlaces, document: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows [first, last) of the tokens that overlap the characters [start, end).

    ``document`` are document numbers of ``places``; all arrays int64 [n_spans]. A span that
    no token overlaps has first ≥ last.
    """
    first = np.searchsorted(places.stops, document * PER_DOCUMENT + start, side="right")
    last = np.searchsorted(places.starts, document * PER_DOCUMENT + end, side="left")
    return first, np.where(end > start, last, first)


def align_table(spans: pl.DataFrame, places: TokenPlaces, start: str, end: str) -> pl.DataFrame:
    """Spans whose document is in ``places``, in their order, with row_start, row_end and
    first_row of their document (all Int64).

    ``start`` and ``end`` name the columns of character offsets. A span without any token has
    row_start ≥ row_end.
    """
    spans = spans.join(places.documents, on="doc_id", how="inner", maintain_order="left")
    characters = spans.select(pl.col(start, end).cast(pl.Int64))
    first, last = align_ranges(
        places,
        spans["document"].to_numpy(),
        characters[start].to_numpy(),
        characters[end].to_numpy(),
    )
    return spans.drop("document").with_columns(
        pl.Series("row_start", first, pl.Int64), pl.Series("row_end", last, pl.Int64)
    )


def align_spans(
    spans: Sequence[str | Path],
    tokens: Sequence[str | Path],
    jsonl: str | Path,
    table: str | Path,
) -> int:
    """Add token_positions, token_start, token_end (exclusive), token_count to entity spans.

    ``spans`` are JSONL files and ``tokens`` token tables of the same shards, in order. The
    aligned spans are written to ``jsonl`` and, without their text, to the Parquet ``table``.
    Token positions are indices in the document. Spans that no token overlaps are dropped,
    counted and logged. Returns their number.
    """
    n_dropped = 0
    with (
        atomic_path(jsonl) as lines,
        lines.open("wb") as out,
        atomic_path(table) as rows,
        pq.ParquetWriter(rows, ALIGNED_SPANS, compression="zstd") as writer,
    ):
        for spans_path, tokens_path in progress(
            list(zip(spans, tokens, strict=True)), "shards of spans aligned"
        ):
            given = _read_spans(spans_path)
            aligned = align_table(_trimmed(given), TokenPlaces.read(tokens_path), "_start", "_end")
            aligned = aligned.filter(pl.col("row_end") > pl.col("row_start"))
            n_dropped += given.height - aligned.height
            aligned = _with_positions(aligned).drop("_start", "_end")
            aligned.write_ndjson(out)
            columns = aligned.select(ALIGNED_SPANS.names).to_arrow()
            writer.write_table(columns.cast(ALIGNED_SPANS))
    if n_dropped:
        logger.warning(
            "%d entity spans overlap no token of their shard and were dropped", n_dropped
        )
    return n_dropped


def locate_occurrences(occurrences: pl.DataFrame, tokens: Sequence[str | Path]) -> pl.DataFrame:
    """Add shard, row_start, row_end (exclusive) and token_positions to term occurrences.

    ``occurrences`` has doc_id, char_start, char_end and occurrence_id; ``tokens`` are the
    token tables of all shards, named by shard. Occurrences that no token overlaps are
    dropped, counted and logged. Sorted by occurrence_id.
    """
    parts = []
    for path in progress(tokens, "shards searched for occurrences"):
        located = align_table(occurrences, TokenPlaces.read(path), "char_start", "char_end")
        located = located.filter(pl.col("row_end") > pl.col("row_start"))
        parts.append(
            located.with_columns(
                pl.lit(Path(path).stem).alias("shard"),
                pl.col("row_start", "row_end").cast(pl.UInt64),
                _positions(),
            ).select(*occurrences.columns, *LOCATED)
        )
    found = pl.concat(parts).sort("occurrence_id")
    if found.height < occurrences.height:
        logger.warning(
            "%d of %d occurrences overlap no token and were dropped",
            occurrences.height - found.height,
            occurrences.height,
        )
    return found


SPAN_SCHEMA = {
    "doc_id": pl.String,
    "start": pl.Int64,
    "end": pl.Int64,
    "text": pl.String,
    "entity_group": pl.String,
    "score": pl.Float64,
}


def _read_spans(path: str | Path) -> pl.DataFrame:
    if Path(path).stat().st_size == 0:
        return pl.DataFrame(schema=SPAN_SCHEMA)
    return pl.read_ndjson(path, schema=SPAN_SCHEMA)


def _trimmed(spans: pl.DataFrame) -> pl.DataFrame:
    """With _start and _end: the span without the white space at its edges."""
    text = pl.col("text")
    left = text.str.len_chars() - text.str.strip_chars_start().str.len_chars()
    right = text.str.len_chars() - text.str.strip_chars_end().str.len_chars()
    return spans.with_columns(
        (pl.col("start") + left).alias("_start"), (pl.col("end") - right).alias("_end")
    )


def _positions() -> pl.Expr:
    relative = (
        pl.col(name).cast(pl.Int64) - pl.col("first_row") for name in ("row_start", "row_end")
    )
    return pl.int_ranges(*relative, dtype=pl.UInt32).alias("token_positions")


def _with_positions(spans: pl.DataFrame) -> pl.DataFrame:
    return spans.with_columns(
        _positions(),
        (pl.col("row_start") - pl.col("first_row")).alias("token_start"),
        (pl.col("row_end") - pl.col("first_row")).alias("token_end"),
        (pl.col("row_end") - pl.col("row_start")).alias("token_count"),
    ).drop("row_start", "row_end", "first_row")
