"""The split keeps patients whole; shards are cuts of one order; bad tables are refused."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsae.io import UserError
from medsae.notes import NoteColumns, prepare_notes, scan_notes, write_notes

COLUMNS = NoteColumns(text="text", doc_id="id", patient_id="patient")


def table(n_notes: int = 60, n_patients: int = 20) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [f"note-{i}" for i in range(n_notes)],
            "patient": [f"p{i % n_patients}" for i in range(n_notes)],
            "text": ["word " * (1 + i * 7 % 23) for i in range(n_notes)],
        }
    )


def prepare(tmp_path: Path, notes: pl.DataFrame, **changes):
    notes.write_parquet(tmp_path / "notes.parquet")
    settings = {"seed": 1, "val_fraction": 0.2, "shards": 3, "val_shards": 1} | changes
    return prepare_notes(tmp_path / "notes.parquet", COLUMNS, **settings)


def refused(tmp_path: Path, notes: pl.DataFrame, **changes) -> str:
    with pytest.raises(UserError) as caught:
        prepare(tmp_path, notes, **changes)
    return str(caught.value)


def test_no_patient_is_on_both_sides(tmp_path):
    notes, summary = prepare(tmp_path, table())
    sides = notes.group_by("patient_id").agg(pl.col("split").n_unique())
    assert sides["split"].max() == 1
    assert summary.n_train + summary.n_val == summary.n_notes == 60
    assert 0 < summary.n_val <= 0.2 * 60


@settings(max_examples=30, deadline=None)
@given(shards=st.integers(1, 40), seed=st.integers(0, 5))
def test_shards_are_contiguous_cuts_of_one_order(tmp_path_factory, shards, seed):
    folder = tmp_path_factory.mktemp("shards")
    whole, _ = prepare(folder, table(), shards=1, seed=seed)
    cut, _ = prepare(folder, table(), shards=shards, seed=seed)
    assert cut["doc_id"].to_list() == whole["doc_id"].to_list()
    train = cut.filter(split="train")["shard"]
    assert train.n_unique() == shards
    assert train.is_sorted()


def test_shards_hold_nearly_equal_amounts_of_text(tmp_path):
    notes, _ = prepare(tmp_path, table(600, 200), shards=4)
    lengths = (
        notes.filter(split="train")
        .group_by("shard")
        .agg(pl.col("text").str.len_chars().sum())["text"]
    )
    assert lengths.max() - lengths.min() <= 2 * table()["text"].str.len_chars().max()


def test_the_order_of_rows_does_not_matter(tmp_path):
    notes, _ = prepare(tmp_path, table())
    shuffled, _ = prepare(tmp_path, table().sample(fraction=1, shuffle=True, seed=3))
    assert shuffled.drop("row").equals(notes.drop("row"))


def test_max_rows_keeps_that_many(tmp_path):
    _, summary = prepare(tmp_path, table(), max_rows=17)
    assert (summary.n_notes, summary.n_rows_in_file) == (17, 60)


def test_a_shard_is_read_on_its_own(tmp_path):
    notes, _ = prepare(tmp_path, table())
    write_notes(tmp_path / "out.parquet", notes)
    assert scan_notes(tmp_path / "out.parquet").collect().equals(notes)
    part = scan_notes(tmp_path / "out.parquet", "train-00001").collect()
    assert part.equals(notes.filter(shard="train-00001"))


def test_duplicate_ids_are_named_with_their_rows(tmp_path):
    notes = table().with_columns(id=pl.lit("same"))
    assert "'same' in rows 1, 2, 3, 4, 5 and 55 more" in refused(tmp_path, notes)


@pytest.mark.parametrize("column", ["id", "patient"])
def test_a_null_id_is_named_with_its_row(tmp_path, column):
    notes = table().with_columns(
        pl.when(pl.int_range(pl.len()) == 4).then(None).otherwise(pl.col(column)).alias(column)
    )
    assert f"row 5: column '{column}' is empty" in refused(tmp_path, notes)


@pytest.mark.parametrize("empty", [None, "", "  \n"])
def test_an_empty_text_is_refused_or_counted(tmp_path, empty):
    notes = table().with_columns(
        pl.when(pl.int_range(pl.len()) == 1).then(pl.lit(empty)).otherwise("text").alias("text")
    )
    assert "row 2: column 'text' has no text" in refused(tmp_path, notes)
    _, summary = prepare(tmp_path, notes, drop_empty_text=True)
    assert (summary.n_dropped_empty, summary.n_notes) == (1, 59)


def test_more_shards_than_notes_is_refused(tmp_path):
    assert "corpus.shards is 99" in refused(tmp_path, table(), shards=99)


def test_one_patient_cannot_be_split(tmp_path):
    assert "at least two" in refused(tmp_path, table(10, 1))
