"""Files of spans: JSONL with one span a line, and the table without text."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from medsae.io import UserError, atomic_path
from medsae.ner.columns import GOLD_SCHEMA, SPAN_KEYS, TABLE_COLUMNS, TABLE_SCHEMA

ROWS_PER_GROUP = 100_000


def write_spans(path: str | Path, spans: Iterable[dict[str, Any]]) -> int:
    """Write spans (keys ``SPAN_KEYS``) as JSONL, atomically; returns how many there were."""
    n_spans = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        for span in spans:
            ordered = {key: span[key] for key in SPAN_KEYS}
            handle.write(json.dumps(ordered, ensure_ascii=False) + "\n")
            n_spans += 1
    return n_spans


def merge_spans(shards: Sequence[str | Path], jsonl: str | Path, table: str | Path) -> int:
    """Concatenate the span files of ``shards`` in the given order; returns the number of spans.

    One batch of lines is in memory at a time. ``table`` is Parquet with ``TABLE_COLUMNS``.
    """
    n_spans = 0
    with (
        atomic_path(jsonl) as jsonl_path,
        atomic_path(table) as table_path,
        jsonl_path.open("w", encoding="utf-8") as handle,
        pq.ParquetWriter(table_path, TABLE_SCHEMA, compression="zstd") as writer,
    ):
        rows: list[dict[str, Any]] = []
        for shard in shards:
            with Path(shard).open(encoding="utf-8") as lines:
                for line in lines:
                    handle.write(line)
                    span = json.loads(line)
                    rows.append({column: span[column] for column in TABLE_COLUMNS})
                    n_spans += 1
                    if len(rows) == ROWS_PER_GROUP:
                        writer.write_table(pa.Table.from_pylist(rows, TABLE_SCHEMA))
                        rows.clear()
        writer.write_table(pa.Table.from_pylist(rows, TABLE_SCHEMA))
    return n_spans


def read_spans(path: str | Path) -> pl.DataFrame:
    """Read annotated spans: columns doc_id, start, end (i64), entity_group; other keys ignored.

    Raises ``UserError`` naming the first line that is no such span.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"span file {path} does not exist: correct the path")
    columns: dict[str, list[Any]] = {name: [] for name in GOLD_SCHEMA}
    with path.open(encoding="utf-8") as lines:
        number = 0
        try:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                for name, value in zip(GOLD_SCHEMA, _span(path, number, line), strict=True):
                    columns[name].append(value)
        except UnicodeDecodeError:
            raise UserError(
                f"span file {path} is not UTF-8 after line {number}: save it as UTF-8"
            ) from None
    if not columns["doc_id"]:
        raise UserError(f"span file {path} has no spans: give it at least one")
    return pl.DataFrame(columns, schema=GOLD_SCHEMA)


def _span(path: Path, number: int, line: str) -> tuple[str, int, int, str]:
    try:
        span = json.loads(line)
        doc_id, start, end, label = (span[name] for name in GOLD_SCHEMA)
    except json.JSONDecodeError as error:
        raise UserError(
            f"span file {path}, line {number} is not JSON ({error.msg}): write one object per line"
        ) from None
    except (KeyError, TypeError):
        raise UserError(
            f"span file {path}, line {number} lacks a key: each span needs {', '.join(GOLD_SCHEMA)}"
        ) from None
    whole = isinstance(start, int) and isinstance(end, int) and isinstance(label, str)
    if not whole or not 0 <= start < end:
        raise UserError(
            f"span file {path}, line {number}: start and end must be whole numbers with "
            "0 <= start < end, and entity_group a string"
        )
    return str(doc_id), start, end, label
