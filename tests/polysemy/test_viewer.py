"""Top contexts equal a search over all activations, however the shards are cut."""

import json

import numpy as np
import polars as pl
import pytest

from medsae.polysemy import top_contexts
from medsae.polysemy.top_contexts import N_CONTEXTS, find_top_contexts
from medsae.polysemy.viewer import TOP_TOKENS, read_latent_table, top_tokens, write_pack

N_LATENTS = 40
N_DOCUMENTS = 60
WORDS = ["a̐cute ", "Blöck", "mass\r\n", "😀 ", "the "]


@pytest.fixture(scope="module")
def corpus():
    """Notes, their tokens with latents, and entity spans over tokens 2–3 of every note."""
    rng = np.random.default_rng(0)
    notes, tokens, spans = [], [], []
    for number in range(N_DOCUMENTS):
        text, doc_id = "", f"d{number:02d}"
        for index in range(8):
            word = WORDS[rng.integers(len(WORDS))]
            n_active = int(rng.integers(0, 6))
            ids = rng.choice(N_LATENTS - 1, n_active, replace=False)  # the last never fires
            z = np.sort(rng.integers(1, 50, n_active) / 8)[::-1]  # with ties
            tokens.append(
                {
                    "doc_id": doc_id,
                    "patient_id": doc_id,
                    "token_index": index,
                    "token_id": 0,
                    "char_start": len(text),
                    "char_end": len(text) + len(word),
                    "latent_ids": ids.tolist(),
                    "z_values": z.tolist(),
                    "z_values_norm": (z / 10).tolist(),
                }
            )
            text += word
        notes.append({"doc_id": doc_id, "text": text})
        spans.append({"doc_id": doc_id, "token_start": 2, "token_end": 4, "entity_group": "organ"})
        spans.append({"doc_id": doc_id, "token_start": 3, "token_end": 4, "entity_group": "drug"})
    types = {
        "token_index": pl.UInt32,
        "char_start": pl.UInt32,
        "char_end": pl.UInt32,
        "latent_ids": pl.List(pl.Int32),
        "z_values": pl.List(pl.Float32),
        "z_values_norm": pl.List(pl.Float32),
    }
    return pl.DataFrame(notes), pl.DataFrame(tokens, schema_overrides=types), pl.DataFrame(spans)


def write(corpus, folder, n_shards):
    notes, tokens, spans = corpus
    notes.write_parquet(folder / "notes.parquet", row_group_size=17)
    spans.write_parquet(folder / "spans.parquet")
    size = -(-N_DOCUMENTS // n_shards) * 8
    paths = []
    for index in range(n_shards):
        path = folder / f"train-{index:05d}.parquet"
        part = tokens.slice(index * size, size).with_columns(pl.col("doc_id").cast(pl.Categorical))
        part.write_parquet(path, row_group_size=50)
        paths.append(path)
    return paths


def search(corpus):
    """Every activation sorted, the best of each document taken, by hand."""
    notes, tokens, _ = corpus
    text = dict(notes.iter_rows())
    found = {}
    for row in tokens.iter_rows(named=True):
        for latent, z in zip(row["latent_ids"], row["z_values"], strict=True):
            key = (-z, row["doc_id"], row["token_index"])
            word = text[row["doc_id"]][row["char_start"] : row["char_end"]]
            best = found.setdefault(latent, {})
            if row["doc_id"] not in best or key < best[row["doc_id"]][0]:
                best[row["doc_id"]] = (key, word)
    return {latent: sorted(best.values())[:N_CONTEXTS] for latent, best in found.items()}


@pytest.mark.parametrize("n_shards", [1, 3])
@pytest.mark.parametrize("batch_entries", [1, 1 << 22])
def test_top_tokens_equal_an_exhaustive_search(
    corpus, tmp_path, monkeypatch, n_shards, batch_entries
):
    monkeypatch.setattr(top_contexts, "BATCH_ENTRIES", batch_entries)
    monkeypatch.setattr(top_contexts, "MIN_ROWS", 16)
    monkeypatch.setattr(top_contexts, "MERGE_ROWS", 64)
    shards = write(corpus, tmp_path, n_shards)
    found = find_top_contexts(shards, tmp_path / "spans.parquet", N_LATENTS)
    table = top_tokens(found, tmp_path / "notes.parquet")
    assert tuple(table.columns) == TOP_TOKENS
    expected = search(corpus)
    for latent in range(N_LATENTS):
        rows = table.filter(pl.col("latent_id") == latent)
        mine = [
            ((-row["z"], row["doc_id"], row["position"]), row["token_str"])
            for row in rows.iter_rows(named=True)
        ]
        assert mine == expected.get(latent, [])
        assert rows["rank"].to_list() == list(range(1, rows.height + 1))
        assert rows["doc_id"].is_unique().all()


def test_entity_labels_are_those_of_the_token(corpus, tmp_path):
    shards = write(corpus, tmp_path, 2)
    found = find_top_contexts(shards, tmp_path / "spans.parquet", N_LATENTS)
    table = top_tokens(found, tmp_path / "notes.parquet")
    labels = {2: "organ", 3: "drug|organ"}
    assert all(
        row["ner_labels"] == labels.get(row["position"], "") for row in table.iter_rows(named=True)
    )
    exploded = corpus[1].explode("latent_ids").drop_nulls("latent_ids")
    for latent in range(N_LATENTS):
        mine = exploded.filter(pl.col("latent_ids") == latent)
        assert found.firings[latent] == mine.height
        organ = mine["token_index"].is_in([2, 3]).sum()
        assert found.label_firings[latent, found.labels.index("organ")] == organ


def test_the_pack_gathers_what_is_known_of_each_alive_latent(corpus, tmp_path):
    shards = write(corpus, tmp_path, 2)
    found = find_top_contexts(shards, tmp_path / "spans.parquet", N_LATENTS)
    tokens = top_tokens(found, tmp_path / "notes.parquet")
    calibration = pl.DataFrame(
        {
            "latent_id": range(N_LATENTS),
            "firing_count": found.firings,
            "firing_rate": found.firings / found.n_tokens,
            "max_activation": [1.0] * N_LATENTS,
        }
    )
    (tmp_path / "linked.csv").write_text(
        "lemma,sense,latent_id,presence_rate_diff,qvalue,confirmed\nblock,cardiac,3,0.5,0.01,true\n"
    )
    (tmp_path / "probes.csv").write_text("latent_id,auroc,ap,lemma,sense\n")
    path = tmp_path / "pack.json"
    write_pack(
        path,
        found,
        tokens,
        calibration,
        read_latent_table(tmp_path / "linked.csv"),
        read_latent_table(tmp_path / "probes.csv"),
        {"model": "m", "layer": 3, "sae": "s"},
    )
    pack = json.loads(path.read_text(encoding="utf-8"))
    assert pack["corpus"]["n_tokens"] == N_DOCUMENTS * 8
    ids = [latent["id"] for latent in pack["latents"]]
    assert ids == sorted(ids) and N_LATENTS - 1 not in ids and len(ids) == pack["corpus"]["n_alive"]
    entry = pack["latents"][ids.index(3)]
    assert entry["senses"] == [
        {
            "lemma": "block",
            "sense": "cardiac",
            "presence_rate_diff": 0.5,
            "qvalue": 0.01,
            "confirmed": True,
        }
    ]
    assert entry["probes"] == []
    shown = tokens.filter(pl.col("latent_id") == 3)
    assert sum(token["count"] for token in entry["top_tokens"]) == shown.height
    assert max(token["z"] for token in entry["top_tokens"]) == shown["z"].max()
    assert all(token["token"] in WORDS for token in entry["top_tokens"])
    assert all(0 < share <= 1 for share in entry["entities"].values())


def test_notes_without_entities_are_no_trouble(corpus, tmp_path):
    shards = write(corpus, tmp_path, 1)
    corpus[2].clear().write_parquet(tmp_path / "spans.parquet")
    found = find_top_contexts(shards, tmp_path / "spans.parquet", N_LATENTS)
    assert found.labels == []
    assert (top_tokens(found, tmp_path / "notes.parquet")["ner_labels"] == "").all()
