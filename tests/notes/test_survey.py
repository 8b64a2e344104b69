"""The survey of a notes file counts what is there, in every format."""

import gzip

import polars as pl
import pytest

from medsae.io import UserError
from medsae.notes.survey import survey_notes

TEXTS = ["short", "two\nlines, with a comma", 'quoted "word"', "ünïcode 😀", None]
CHARS = sum(len(text) for text in TEXTS if text)


@pytest.mark.parametrize("name", ["n.csv", "n.csv.gz", "n.parquet", "n.jsonl"])
def test_rows_and_characters_are_counted(tmp_path, name):
    table = pl.DataFrame({"doc_id": [str(i) for i in range(5)], "text": TEXTS})
    path = tmp_path / name
    if name == "n.parquet":
        table.write_parquet(path)
    elif name == "n.jsonl":
        table.write_ndjson(path)
    else:
        csv = table.write_csv().encode()
        path.write_bytes(gzip.compress(csv) if name.endswith(".gz") else csv)
    assert survey_notes(path, "text") == (5, CHARS)


def test_a_missing_column_is_named(tmp_path):
    path = tmp_path / "n.csv"
    path.write_text("doc_id,body\n1,x\n")
    with pytest.raises(UserError, match="no column 'text'"):
        survey_notes(path, "text")


def test_a_file_that_is_no_table_is_refused_without_quoting_it(tmp_path):
    path = tmp_path / "n.parquet"
    path.write_text("Patient was seen")
    with pytest.raises(UserError, match=r"n\.parquet cannot be read") as caught:
        survey_notes(path, "text")
    assert "Patient" not in str(caught.value)
