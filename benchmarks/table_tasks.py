"""Tables of tokens: the published CSV of latents, and entity spans aligned to tokens.

Both sides read the same generated files and write the same rows; reading and writing count.
"""

import csv
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import polars as pl
import pyarrow.parquet as pq

TOKENS_PER_NOTE = 1_500
PER_NOTE = 100
"""Occurrences, and entity spans, of a note."""
SHARD = "train-00000"
LISTS = ("latent_ids", "z_values", "z_values_norm")


def generate(folder: Path, n_occurrences: int, k: int, seed: int = 0) -> None:
    """Notes, tokens with their latents, occurrences of one token, and entity spans."""
    from medsae.activations.columns import TOKENS

    rng = np.random.default_rng(seed)
    n_notes, n_tokens = n_occurrences // PER_NOTE, TOKENS_PER_NOTE
    texts, tokens = [], []
    for note in range(n_notes):
        lengths = rng.integers(2, 10, n_tokens)
        ends = np.cumsum(lengths + 1) - 1
        letters = rng.integers(97, 123, ends[-1], dtype=np.uint8)
        letters[ends[:-1]] = 32
        texts.append(letters.tobytes().decode())
        starts = ends - lengths
        tokens.append(
            pl.DataFrame(
                {
                    "doc_id": [f"d{note:05d}"] * n_tokens,
                    "patient_id": [f"p{note // 2:05d}"] * n_tokens,
                    "token_index": np.arange(n_tokens, dtype=np.uint32),
                    "token_id": rng.integers(0, 49_152, n_tokens, dtype=np.int32),
                    # a token carries the space before it
                    "char_start": np.maximum(starts - 1, 0).astype(np.uint32),
                    "char_end": ends.astype(np.uint32),
                }
            )
        )
    doc_ids = [f"d{note:05d}" for note in range(n_notes)]
    notes = pl.DataFrame({"doc_id": doc_ids, "text": texts, "shard": [SHARD] * n_notes})
    notes.write_parquet(folder / "notes.parquet")
    table = pl.concat(tokens)
    (folder / "tokens").mkdir()
    pq.write_table(table.to_arrow().cast(TOKENS), folder / "tokens" / f"{SHARD}.parquet")
    _write_latents(folder, table, n_notes, k, rng)
    _write_spans(folder, texts, table, rng)


def _write_latents(
    folder: Path, table: pl.DataFrame, n_notes: int, k: int, rng: np.random.Generator
) -> None:
    """Latents of the tokens that an occurrence lies on; other tokens have none, to save disk."""
    every = np.tile(np.arange(TOKENS_PER_NOTE), (n_notes, 1))
    within = np.sort(rng.permuted(every, axis=1)[:, :PER_NOTE])
    rows = (within + TOKENS_PER_NOTE * np.arange(n_notes)[:, None]).ravel()
    ids = rng.integers(0, 65_536, (len(rows), k), dtype=np.int32)
    z = -np.sort(-rng.gamma(2, size=(len(rows), k)).astype(np.float32), axis=1)
    lists = pl.DataFrame({"latent_ids": ids, "z_values": z, "z_values_norm": z / 16})
    lists = lists.with_columns(pl.col(LISTS).arr.to_list(), pl.Series("row", rows, pl.UInt32))
    numbered = table.with_row_index("row").join(lists, on="row", how="left").sort("row")
    empty = [pl.col(name).fill_null([]) for name in LISTS]
    (folder / "topk").mkdir()
    numbered.with_columns(empty).drop("row").write_parquet(
        folder / "topk" / f"{SHARD}.parquet", row_group_size=50_000
    )
    here = table[rows]
    pl.DataFrame(
        {
            "occurrence_id": np.arange(len(rows)),
            "doc_id": here["doc_id"],
            "lemma": [f"term{index % 15:02d}" for index in range(len(rows))],
            "sense": ["one"] * len(rows),
            "shard": [SHARD] * len(rows),
            "row_start": rows.astype(np.uint64),
            "row_end": rows.astype(np.uint64) + 1,
        }
    ).write_parquet(folder / "occurrences.parquet")


def _write_spans(
    folder: Path, texts: list[str], table: pl.DataFrame, rng: np.random.Generator
) -> None:
    starts = table["char_start"].to_numpy().reshape(-1, TOKENS_PER_NOTE)
    ends = table["char_end"].to_numpy().reshape(-1, TOKENS_PER_NOTE)
    with (folder / f"{SHARD}.jsonl").open("w") as out:
        for note, text in enumerate(texts):
            first = np.sort(rng.choice(TOKENS_PER_NOTE - 4, PER_NOTE, replace=False))
            last = first + rng.integers(0, 4, PER_NOTE)
            for a, b in zip(first, last, strict=True):
                start, end = int(starts[note, a]), int(ends[note, b])
                start += text[start] == " "
                span = {"doc_id": f"d{note:05d}", "start": start, "end": end}
                span |= {"text": text[start:end], "entity_group": "finding", "score": 0.9}
                out.write(json.dumps(span) + "\n")


def as_is(path: Path) -> Path:
    """The files themselves: reading them is part of the task."""
    return path


# topk_latents.csv: a row per occurrence with its latents as JSON.


def topk_straightforward(folder: Path) -> dict[str, Any]:
    """pandas, a row at a time."""
    import pandas as pd

    from medsae.polysemy.topk import PUBLISHED_COLUMNS

    occurrences = pd.read_parquet(folder / "occurrences.parquet")
    tokens = pd.read_parquet(folder / "topk" / f"{SHARD}.parquet")
    notes = pd.read_parquet(folder / "notes.parquet")
    text_of = dict(zip(notes["doc_id"], notes["text"], strict=True))
    with (folder / "straightforward.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(PUBLISHED_COLUMNS)
        for occurrence in occurrences.itertuples():
            token = tokens.iloc[int(occurrence.row_start)]
            text = text_of[occurrence.doc_id][token["char_start"] : token["char_end"]]
            lists = [json.dumps([x.item() for x in token[name]]) for name in LISTS]
            writer.writerow(
                [occurrence.doc_id, 0, "m", text, occurrence.lemma, token["token_index"],
                 occurrence.row_start, token["token_id"], len(token["z_values"]), *lists,
                 token["char_start"], token["char_end"], occurrence.sense,
                 occurrence.occurrence_id, SHARD, "s"]
            )  # fmt: skip
    return {"rows": len(occurrences)}


def topk_library(folder: Path) -> dict[str, Any]:
    from medsae.polysemy.topk import write_topk_csv

    rows = write_topk_csv(
        pl.read_parquet(folder / "occurrences.parquet"),
        [folder / "topk" / f"{SHARD}.parquet"],
        folder / "notes.parquet",
        folder / "library.csv",
        k=128, model="m", layer=0, sae="s",
    )  # fmt: skip
    return {"rows": rows}


def rows_and_ids(name: str) -> Callable[[Path], Any]:
    """Rows of the CSV that was written, and the sum of all latent ids in them."""
    return partial(_rows_and_ids, name)


def _rows_and_ids(name: str, folder: Path) -> tuple[int, int]:
    ids = pl.col("latent_ids_json").str.json_decode(pl.List(pl.Int64)).list.sum().sum()
    total = pl.scan_csv(folder / name).select(pl.len(), ids).collect(engine="streaming")
    return total.row(0)


# Entity spans: which tokens of the note does each overlap?


def align_straightforward(folder: Path) -> dict[str, Any]:
    """For each span a search through the tokens of its note."""
    import pandas as pd

    tokens = pd.read_parquet(folder / "tokens" / f"{SHARD}.parquet")
    places = {
        doc_id: list(zip(part["token_index"], part["char_start"], part["char_end"], strict=True))
        for doc_id, part in tokens.groupby("doc_id")
    }
    n, total = 0, 0
    with (folder / f"{SHARD}.jsonl").open() as lines, (folder / "aligned.jsonl").open("w") as out:
        for line in lines:
            span = json.loads(line)
            found = [
                int(index)
                for index, start, end in places[span["doc_id"]]
                if start < span["end"] and end > span["start"]
            ]
            span |= {"token_positions": found, "token_start": found[0]}
            span |= {"token_end": found[-1] + 1, "token_count": len(found)}
            out.write(json.dumps(span) + "\n")
            n, total = n + 1, total + sum(found)
    return {"spans": n, "check": (n, total)}


def align_library(folder: Path) -> dict[str, Any]:
    from medsae.activations.align import align_spans

    table = folder / "aligned.parquet"
    align_spans(
        [folder / f"{SHARD}.jsonl"],
        [folder / "tokens" / f"{SHARD}.parquet"],
        folder / "aligned_library.jsonl",
        table,
    )
    found = pl.read_parquet(table, columns=["token_positions"])["token_positions"]
    return {"spans": len(found), "check": (len(found), int(found.list.sum().sum()))}


Side = common.Side

TASKS: dict[str, tuple[Side | None, Side]] = {
    "topk_export": (
        Side(as_is, topk_straightforward, rows_and_ids("straightforward.csv")),
        Side(as_is, topk_library, rows_and_ids("library.csv")),
    ),
    "span_alignment": (Side(as_is, align_straightforward), Side(as_is, align_library)),
}
