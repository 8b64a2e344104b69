"""Spans of characters land on exactly the tokens that overlap them."""

import json
from itertools import pairwise
from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from medsae.activations.align import TokenPlaces, align_spans, align_table, locate_occurrences
from medsae.activations.tokenize import tokenize_notes


def token_table(path: Path, documents: dict[str, list[tuple[int, int]]]) -> Path:
    rows = [
        {"doc_id": doc_id, "token_index": index, "char_start": start, "char_end": end}
        for doc_id, offsets in documents.items()
        for index, (start, end) in enumerate(offsets)
    ]
    schema = {
        "doc_id": pl.String,
        "token_index": pl.UInt32,
        "char_start": pl.UInt32,
        "char_end": pl.UInt32,
    }
    pl.DataFrame(rows, schema=schema).write_parquet(path)
    return path


# "Acute renal failure" with leading spaces in the tokens, and an emoji in two tokens
PLANTED = {"x": [(0, 5), (5, 11), (11, 19)], "y": [(0, 3), (3, 4), (3, 4), (4, 9)]}


def span(doc_id: str, start: int, end: int, text: str) -> dict:
    labels = {"entity_group": "renal or kidney disorder", "score": 0.9}
    return {"doc_id": doc_id, "start": start, "end": end, "text": text} | labels


def aligned(tmp_path: Path, spans: list[dict]) -> list[dict]:
    tokens = token_table(tmp_path / "train-00000.parquet", PLANTED)
    path = tmp_path / "train-00000.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in spans))
    out = tmp_path / "out.jsonl"
    align_spans([path], [tokens], out, tmp_path / "out.parquet")
    return [json.loads(line) for line in out.read_text().splitlines()]


def positions(tmp_path: Path, *given_span: object) -> list[list[int]]:
    found = aligned(tmp_path, [span(*given_span)])
    return [one["token_positions"] for one in found]


def test_a_word_gets_the_token_that_carries_its_leading_space(tmp_path: Path):
    assert positions(tmp_path, "x", 6, 11, "renal") == [[1]]


def test_a_span_that_ends_before_a_space_does_not_take_the_next_token(tmp_path: Path):
    assert positions(tmp_path, "x", 0, 5, "Acute") == [[0]]


def test_white_space_at_the_edges_of_a_span_takes_no_token(tmp_path: Path):
    assert positions(tmp_path, "x", 0, 6, "Acute ") == [[0]]
    assert positions(tmp_path, "x", 5, 12, " renal ") == [[1]]


def test_part_of_a_token_takes_the_whole_token(tmp_path: Path):
    assert positions(tmp_path, "x", 9, 13, "al f") == [[1, 2]]


def test_a_character_in_two_tokens_takes_both(tmp_path: Path):
    assert positions(tmp_path, "y", 3, 4, "👍") == [[1, 2]]


def test_a_span_without_tokens_is_dropped_and_counted(tmp_path: Path, caplog):
    assert aligned(tmp_path, [span("x", 5, 6, " "), span("x", 30, 34, "gone")]) == []
    assert "2 entity spans overlap no token" in caplog.text


def test_no_spans_give_empty_files_with_the_schema(tmp_path: Path):
    assert aligned(tmp_path, []) == []
    assert "token_positions" in pl.read_parquet_schema(tmp_path / "out.parquet")


def test_outputs_keep_the_keys_and_the_table_has_no_text(tmp_path: Path):
    (found,) = aligned(tmp_path, [span("x", 6, 19, "renal failure")])
    assert found == span("x", 6, 19, "renal failure") | {
        "token_positions": [1, 2],
        "token_start": 1,
        "token_end": 3,
        "token_count": 2,
    }
    table = pl.read_parquet(tmp_path / "out.parquet")
    assert "text" not in table.columns
    assert table["token_positions"].to_list() == [[1, 2]]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_ranges_equal_a_search_by_hand(tmp_path_factory, data: st.DataObject):
    documents = {}
    for name in "abc"[: data.draw(st.integers(1, 3))]:
        cuts = data.draw(st.lists(st.integers(0, 30), min_size=2, max_size=12))
        edges = sorted(cuts)
        documents[name] = list(pairwise(edges))
    folder = tmp_path_factory.mktemp("align")
    places = TokenPlaces.read(token_table(folder / "t.parquet", documents))
    wanted = data.draw(
        st.lists(
            st.tuples(st.sampled_from("abcd"), st.integers(0, 31), st.integers(0, 31)), max_size=8
        )
    )
    spans = pl.DataFrame(
        wanted, schema={"doc_id": pl.String, "s": pl.Int64, "e": pl.Int64}, orient="row"
    )
    found = align_table(spans, places, "s", "e")
    known = [one for one in wanted if one[0] in documents]
    assert found.select("doc_id", "s", "e").rows() == known
    for (doc_id, start, end), first, last, base in zip(
        known, found["row_start"], found["row_end"], found["first_row"], strict=True
    ):
        by_hand = [
            base + index
            for index, (low, high) in enumerate(documents[doc_id])
            if low < end and high > start and low < high
        ]
        taken = [
            row
            for row in range(first, last)
            if documents[doc_id][row - base][0] < documents[doc_id][row - base][1]
        ]
        assert taken == (by_hand if end > start else [])


def test_occurrences_are_located_in_real_notes(
    smollm_tokenizer: Tokenizer, notes: Path, tmp_path: Path
):
    texts = pl.read_parquet(notes)
    tokens = []
    for shard in ("train-00000", "val-00000"):
        tokens.append(tmp_path / f"{shard}.parquet")
        tokenize_notes(notes, shard, smollm_tokenizer, tokens[-1])
    rows = []
    for doc_id, text in texts.select("doc_id", "text").rows():
        for term in ("failure", "regurgitation", "pressure", "discharge"):
            at = text.lower().find(term)
            while at >= 0:
                rows.append((len(rows), doc_id, at, at + len(term)))
                at = text.lower().find(term, at + 1)
    schema = ["occurrence_id", "doc_id", "char_start", "char_end"]
    located = locate_occurrences(pl.DataFrame(rows, schema=schema, orient="row"), tokens)
    assert located["occurrence_id"].to_list() == list(range(len(rows)))
    tables = {path.stem: pl.read_parquet(path) for path in tokens}
    for row in located.iter_rows(named=True):
        taken = tables[row["shard"]].slice(row["row_start"], row["row_end"] - row["row_start"])
        assert taken["doc_id"].unique().to_list() == [row["doc_id"]]
        assert taken["token_index"].to_list() == row["token_positions"]
        text = texts.filter(doc_id=row["doc_id"])["text"].item()
        covered = text[taken["char_start"][0] : taken["char_end"][-1]]
        assert covered.strip() == text[row["char_start"] : row["char_end"]]
    assert located.schema["row_start"] == pl.UInt64
    assert located.schema["token_positions"] == pl.List(pl.UInt32)


def test_occurrences_beyond_the_text_are_dropped(tmp_path: Path, caplog):
    tokens = token_table(tmp_path / "train-00000.parquet", PLANTED)
    occurrences = pl.DataFrame(
        {"occurrence_id": [0, 1], "doc_id": ["x", "y"], "char_start": [6, 50], "char_end": [11, 55]}
    )
    assert locate_occurrences(occurrences, [tokens])["occurrence_id"].to_list() == [0]
    assert "1 of 2 occurrences" in caplog.text
