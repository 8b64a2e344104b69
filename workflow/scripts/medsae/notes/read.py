"""Read a notes file, whatever its format, or say which row is wrong.

Rows are numbered from 1, the header of a CSV not counted. Texts are kept as they are, to
the last carriage return: every later offset refers to them.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import polars as pl

from medsae.io import UserError

LONGEST_NAME = 60
SHOWN_COLUMNS = 30

FORMATS = (".csv", ".csv.gz", ".parquet", ".jsonl")

# Bytes that are not UTF-8 arrive as lone surrogates, so that the row can be named.
UNDECODABLE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class NoteColumns:
    """Names of the columns in the user's file; ``patient_id`` may be absent."""

    text: str
    doc_id: str
    patient_id: str | None

    def names(self) -> list[str]:
        """The columns that have to exist."""
        return [name for name in (self.text, self.doc_id, self.patient_id) if name is not None]


def read_notes(path: str | Path, columns: NoteColumns) -> pl.DataFrame:
    """Read ``path`` into columns row (i64), doc_id, patient_id, text (str, may be null).

    Without a patient column, ``patient_id`` equals ``doc_id``.

    Raises ``UserError`` for a missing or empty file, an unknown format, a missing column, a
    malformed row and a wrong encoding.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"notes file {path} does not exist: set corpus.notes to your file")
    if path.name.endswith(".parquet"):
        table = _read_parquet(path, columns)
    elif path.name.endswith(".jsonl"):
        table = _read_rows(path, columns, _jsonl_rows(path))
    elif path.name.endswith((".csv", ".csv.gz")):
        table = _read_rows(path, columns, _csv_rows(path))
    else:
        raise UserError(f"notes file {path} has an unknown format: use {', '.join(FORMATS)}")
    if table.is_empty():
        raise UserError(f"notes file {path} has no rows: give it at least one note")
    return table


def _read_parquet(path: Path, columns: NoteColumns) -> pl.DataFrame:
    try:
        table = pl.scan_parquet(path)
        _require_columns(path, columns, table.collect_schema().names())
        selected = {
            "doc_id": pl.col(columns.doc_id),
            "patient_id": pl.col(columns.patient_id or columns.doc_id),
            "text": pl.col(columns.text),
        }
        return table.select(
            pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("row"),
            *(column.cast(pl.String).alias(name) for name, column in selected.items()),
        ).collect()
    except pl.exceptions.PolarsError as error:
        # Only the kind of the error: its message may quote a text.
        kind = type(error).__name__
        raise UserError(f"notes file {path} is no readable Parquet file ({kind})") from None


def _read_rows(
    path: Path, columns: NoteColumns, rows: Iterator[tuple[int, dict[str, Any]]]
) -> pl.DataFrame:
    numbers: list[int] = []
    kept: dict[str, list[str | None]] = {name: [] for name in columns.names()}
    for number, row in rows:
        if number == 1:
            _require_columns(path, columns, list(row))
        numbers.append(number)
        for name, values in kept.items():
            values.append(_as_text(path, number, name, row.get(name)))
    return pl.DataFrame(
        {
            "row": numbers,
            "doc_id": kept.get(columns.doc_id, []),
            "patient_id": kept.get(columns.patient_id or columns.doc_id, []),
            "text": kept.get(columns.text, []),
        },
        schema={"row": pl.Int64, "doc_id": pl.String, "patient_id": pl.String, "text": pl.String},
    )


def _require_columns(path: Path, columns: NoteColumns, existing: list[str]) -> None:
    keys = {
        "text_column": columns.text,
        "doc_id_column": columns.doc_id,
        "patient_id_column": columns.patient_id,
    }
    for key, name in keys.items():
        if name is not None and name not in existing:
            raise UserError(
                f"notes file {path} has no column '{name}' (corpus.{key}); {_columns(existing)}"
            )


def _columns(existing: list[str]) -> str:
    """The existing columns in words, unless the first line is a note rather than a header."""
    if any(len(name) > LONGEST_NAME or not name.isprintable() for name in existing):
        return "its first line is no header, or the file is not UTF-8: add a header line"
    shown = ", ".join(existing[:SHOWN_COLUMNS])
    return f"it has: {shown}" + (", …" if len(existing) > SHOWN_COLUMNS else "")


def _as_text(path: Path, number: int, column: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        if isinstance(value, bool | dict | list):
            raise UserError(
                f"notes file {path}, row {number}: column '{column}' holds no text; "
                "make it a string"
            )
        return str(value)
    if UNDECODABLE.search(value):
        raise UserError(
            f"notes file {path}, row {number}: column '{column}' is not UTF-8; "
            "save the file as UTF-8"
        )
    return value


def _open_text(path: Path) -> TextIO:
    # Undecodable bytes pass as lone surrogates; line ends stay as they are.
    how: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", **how)
    return path.open("rt", **how)


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(2**31 - 1)
    with _open_text(path) as handle:
        reader = csv.reader(handle, strict=True)
        number = 0
        try:
            header = next(reader, None)
            if not header:
                raise UserError(f"notes file {path} is empty: give it a header and notes")
            if len(set(header)) < len(header):
                raise UserError(f"notes file {path} names a column twice: rename one of them")
            for values in reader:
                if not values:  # a blank line
                    continue
                number += 1
                if len(values) != len(header):
                    raise UserError(
                        f"notes file {path}, row {number} (line {reader.line_num}) has "
                        f"{len(values)} fields where the header has {len(header)}: quote fields "
                        "that hold commas or line breaks"
                    )
                yield number, dict(zip(header, values, strict=True))
        except csv.Error as error:
            raise UserError(
                f"notes file {path}, row {number + 1} (line {reader.line_num}) is malformed "
                f"({error}): check its quotes"
            ) from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            kind = "is truncated" if isinstance(error, EOFError) else "is no intact gzip file"
            raise UserError(f"notes file {path} {kind}: copy it again") from None


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with _open_text(path) as handle:
        number = 0
        for line_number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            number += 1
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"notes file {path}, line {line_number} is not JSON ({error.msg} at column "
                    f"{error.colno}): write one object per line"
                ) from None
            if not isinstance(row, dict):
                raise UserError(f"notes file {path}, line {line_number} is no JSON object")
            yield number, row
