"""Span files: written, merged in order, read back, refused with a sentence."""

import json
from itertools import pairwise

import polars as pl
import pytest

from medsae.io import UserError
from medsae.ner import SPAN_KEYS, TABLE_COLUMNS, merge_spans, read_spans, write_spans
from medsae.ner import spans as spans_module


def span(doc_id, start, text="héart 🫀"):
    return {
        "doc_id": doc_id,
        "start": start,
        "end": start + len(text),
        "text": text,
        "entity_group": "organ",
        "score": 0.75,
    }


def test_merging_keeps_the_order_of_the_shards_and_does_not_depend_on_their_number(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(spans_module, "ROWS_PER_GROUP", 2)
    spans = [span(f"n{i}", i) for i in range(7)]
    outputs = []
    for cuts in ([0, 7], [0, 0, 3, 4, 7]):
        shards = []
        for begin, end in pairwise(cuts):
            shards.append(tmp_path / f"{len(cuts)}-{len(shards)}.jsonl")
            write_spans(shards[-1], spans[begin:end])
        jsonl, table = tmp_path / f"{len(cuts)}.jsonl", tmp_path / f"{len(cuts)}.parquet"
        assert merge_spans(shards, jsonl, table) == 7
        outputs.append((jsonl.read_bytes(), table.read_bytes()))
    assert outputs[0] == outputs[1]
    lines = [json.loads(line) for line in outputs[0][0].decode().splitlines()]
    assert lines == spans
    assert tuple(lines[0]) == SPAN_KEYS
    merged = pl.read_parquet(tmp_path / "2.parquet")
    assert tuple(merged.columns) == TABLE_COLUMNS
    assert merged["doc_id"].to_list() == [f"n{i}" for i in range(7)]


def test_no_span_at_all_still_makes_both_files(tmp_path):
    write_spans(tmp_path / "s.jsonl", [])
    merge_spans([tmp_path / "s.jsonl"], tmp_path / "m.jsonl", tmp_path / "m.parquet")
    assert pl.read_parquet(tmp_path / "m.parquet").is_empty()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ('{"doc_id": "a", "start": 1, "end": 2}', "line 2 lacks a key"),
        ('{"doc_id": "a", "start": 3, "end": 3, "entity_group": "x"}', "start < end"),
        ('{"doc_id": "a", "start": "1", "end": 3, "entity_group": "x"}', "whole numbers"),
    ],
)
def test_a_line_that_is_no_span_is_named(tmp_path, line, message):
    path = tmp_path / "gold.jsonl"
    path.write_text(json.dumps(span("a", 0)) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_spans(path)


def test_missing_and_empty_span_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_spans(tmp_path / "no.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="has no spans"):
        read_spans(tmp_path / "empty.jsonl")
