"""How much text a notes file holds, without reading it into memory."""

from pathlib import Path

import polars as pl

from medsae.io import UserError


def survey_notes(path: str | Path, text_column: str) -> tuple[int, int]:
    """(notes, characters) of a .csv, .csv.gz, .parquet or .jsonl file, streamed.

    Rows without text count as notes of no characters; which rows are wrong is for
    ``read_notes`` to say. Raises ``UserError`` if the file or the column cannot be read.
    """
    path = Path(path)
    try:
        if path.suffix == ".parquet":
            table = pl.scan_parquet(path)
        elif path.suffix == ".jsonl":
            table = pl.scan_ndjson(path, schema={text_column: pl.String}, ignore_errors=True)
        else:
            table = pl.scan_csv(path, infer_schema=False, encoding="utf8-lossy")
        length = pl.col(text_column).str.len_chars().sum()
        notes, characters = table.select(pl.len(), length.alias("chars")).collect(
            engine="streaming"
        ).row(0)  # fmt: skip
    except pl.exceptions.ColumnNotFoundError:
        raise UserError(
            f"notes file {path} has no column '{text_column}': correct corpus.text_column"
        ) from None
    except (pl.exceptions.PolarsError, OSError) as error:
        # Only the kind of the error: its message may quote a text.
        raise UserError(
            f"notes file {path} cannot be read ({type(error).__name__}): "
            "`snakemake prepare_notes` says which row is wrong"
        ) from None
    return int(notes), int(characters)
