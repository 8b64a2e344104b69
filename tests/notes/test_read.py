"""Every format reads alike; every kind of bad file is refused in one sentence."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsae.io import UserError
from medsae.notes import NoteColumns, read_notes

COLUMNS = NoteColumns(text="text", doc_id="id", patient_id="patient")
HEADER = "id,patient,text\n"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(path: Path, columns: NoteColumns = COLUMNS) -> str:
    with pytest.raises(UserError) as caught:
        read_notes(path, columns)
    return str(caught.value)


@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        min_size=1,
        max_size=4,
    )
)
def test_all_formats_keep_every_character(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("formats")
    rows = [{"id": f"n{i}", "patient": "p", "text": text} for i, text in enumerate(texts)]
    quoted = [text.replace('"', '""') for text in texts]
    csv = HEADER + "".join(f'n{i},p,"{text}"\n' for i, text in enumerate(quoted))
    paths = [
        write(folder / "a.csv", csv),
        write(folder / "a.csv.gz", gzip.compress(csv.encode())),
        write(folder / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows)),
    ]
    pl.DataFrame(rows).write_parquet(folder / "a.parquet")
    for path in [*paths, folder / "a.parquet"]:
        read = read_notes(path, COLUMNS)
        assert read["text"].to_list() == texts, path.suffix
        assert read["row"].to_list() == list(range(1, len(texts) + 1))


def test_without_a_patient_column_each_note_is_its_own_patient(tmp_path):
    path = write(tmp_path / "a.csv", "id,text\n7,x\n8,y\n")
    read = read_notes(path, NoteColumns(text="text", doc_id="id", patient_id=None))
    assert read["patient_id"].to_list() == ["7", "8"]


def test_a_missing_file_is_named(tmp_path):
    assert "nowhere.csv does not exist" in refused(tmp_path / "nowhere.csv")


def test_a_missing_column_lists_those_that_exist(tmp_path):
    message = refused(write(tmp_path / "a.csv", "id,patient,note\n1,2,x\n"))
    assert "no column 'text' (corpus.text_column)" in message
    assert "id, patient, note" in message


@pytest.mark.parametrize("content", ["", HEADER])
def test_an_empty_file_is_refused(tmp_path, content):
    message = refused(write(tmp_path / "a.csv", content))
    assert "is empty" in message or "no rows" in message


def test_a_row_with_too_many_fields_is_named(tmp_path):
    message = refused(write(tmp_path / "a.csv", HEADER + '1,p,"one\ntwo"\n2,p,a,b\n'))
    assert "row 2 (line 4) has 4 fields where the header has 3" in message


def test_an_open_quote_is_refused(tmp_path):
    assert "row 1" in refused(write(tmp_path / "a.csv", HEADER + '1,p,"never closed\n'))


def test_a_wrong_encoding_names_the_row(tmp_path):
    latin = (HEADER + "1,p,ok\n2,p,Ménière\n").encode("latin-1")
    assert "row 2: column 'text' is not UTF-8" in refused(write(tmp_path / "a.csv", latin))


def test_a_truncated_gzip_is_refused(tmp_path):
    # Incompressible enough that half of the bytes are not the whole file.
    body = HEADER + "".join(f"{i},p,{i * 7919 % 104729}\n" for i in range(2000))
    whole = gzip.compress(body.encode())
    assert "truncated" in refused(write(tmp_path / "a.csv.gz", whole[: len(whole) // 2]))


def test_a_damaged_gzip_is_refused(tmp_path):
    whole = bytearray(gzip.compress((HEADER + "1,p,some text\n" * 400).encode()))
    whole[len(whole) // 2] ^= 0xFF
    assert "gzip" in refused(write(tmp_path / "a.csv.gz", bytes(whole)))


def test_a_column_named_twice_is_refused(tmp_path):
    assert "twice" in refused(write(tmp_path / "a.csv", "id,patient,text,text\n1,2,x,y\n"))


def test_a_file_without_a_header_is_not_quoted(tmp_path):
    note = "Seen by Mr Confidential for a cough that has lasted three weeks, no fever, no pain"
    message = refused(write(tmp_path / "a.csv", f'1,p,"{note}"\n2,p,"{note}"\n'))
    assert "no header" in message
    assert "Confidential" not in message


def test_a_bad_json_line_is_named(tmp_path):
    good = json.dumps({"id": "1", "patient": "p", "text": "x"})
    assert "line 2 is not JSON" in refused(write(tmp_path / "a.jsonl", good + "\n{oops\n"))


def test_an_unknown_format_lists_the_known_ones(tmp_path):
    assert ".csv, .csv.gz, .parquet, .jsonl" in refused(write(tmp_path / "a.xlsx", "x"))


def test_no_error_quotes_a_note(tmp_path):
    secret = "Mr Confidential"
    for name, content in {
        "a.csv": HEADER + f'1,p,"{secret}\n',
        "b.csv": HEADER + f"1,p,{secret},{secret}\n",
        "c.jsonl": f'{{"text": "{secret}"\n',
        "d.parquet": secret,
    }.items():
        assert secret not in refused(write(tmp_path / name, content))
