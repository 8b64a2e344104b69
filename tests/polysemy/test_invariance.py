"""No metric depends on how many shards, in which order and on how many threads it was computed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from medsae.polysemy.pooling import CODE
from medsae.store import ShardWriter

HERE = Path(__file__).parent
LIBRARY = HERE.parents[1] / "workflow" / "scripts"


def write_study(table, folder, n_shards, shuffled):
    """Occurrences of two tokens, their codes and hidden states, cut into shards by note."""
    rng = np.random.default_rng(0)
    notes = table["doc_id"].unique().sort().to_list()
    shard_of = {doc: f"train-{index % n_shards:05d}" for index, doc in enumerate(notes)}
    codes = {name: [] for name in shard_of.values()}
    states = {name: [] for name in shard_of.values()}
    places = []
    for row in table.sort("doc_id", "char_start").iter_rows(named=True):
        shard = shard_of[row["doc_id"]]
        start = len(codes[shard])
        first = rng.choice(300, 16, replace=False).tolist()
        code = {"z_values": row["z_values"], "z_values_norm": row["z_values_norm"]}
        codes[shard] += [code | {"latent_ids": ids} for ids in (first, row["latent_ids"])]
        states[shard] += [rng.normal(size=6), rng.normal(size=6) + (row["sense"] == "one")]
        places.append((row["occurrence_id"], shard, start, start + 2))
    (folder / "topk").mkdir(parents=True)
    (folder / "activations").mkdir()
    for name, rows in codes.items():
        pl.DataFrame(rows, schema=CODE).write_parquet(folder / "topk" / f"{name}.parquet")
        matrix = torch.from_numpy(np.array(states[name])).float()
        path = folder / "activations" / f"{name}.safetensors"
        with ShardWriter(path, *matrix.shape, torch.float32, {}) as writer:
            writer.write(0, matrix)
    schema = {"occurrence_id": table.schema["occurrence_id"], "shard": pl.String}
    schema |= {"row_start": pl.UInt64, "row_end": pl.UInt64}
    located = table.drop(*CODE, "shard", "row_start", "row_end", "model", "layer", "sae").join(
        pl.DataFrame(places, schema=schema, orient="row"), on="occurrence_id"
    )
    if shuffled:
        located = located.sample(fraction=1, shuffle=True, seed=5)
    located.write_parquet(folder / "occurrences.parquet")
    # the words after a term tell its sense
    text = pl.DataFrame({"doc_id": notes, "text": ["word " * 700 for _ in notes]})
    text.write_parquet(folder / "notes.parquet")


def digests(folder, threads):
    number = str(threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
    environment = os.environ | dict.fromkeys(names, number) | {"PYTHONPATH": str(LIBRARY)}
    command = [sys.executable, str(HERE / "metrics_in_process.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def one_shard_one_thread(plant, tmp_path_factory):
    table = plant(
        {"lemma": "split", "strength": 0.8, "n_patients": 60},
        {"lemma": "same", "patient_share": 0.5, "n_patients": 40},
        {"lemma": "control", "kind": "control", "n_patients": 20},
    )
    folder = tmp_path_factory.mktemp("plain")
    write_study(table, folder, 1, shuffled=False)
    return table, digests(folder, 1)


@pytest.mark.parametrize(
    ("n_shards", "threads", "shuffled"), [(3, 1, False), (1, 1, True), (1, 2, False), (3, 2, True)]
)
def test_tables_are_the_same_bytes(one_shard_one_thread, tmp_path, n_shards, threads, shuffled):
    table, expected = one_shard_one_thread
    assert all(height for height, _ in expected.values())
    write_study(table, tmp_path, n_shards, shuffled)
    assert digests(tmp_path, threads) == expected
