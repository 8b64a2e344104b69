"""Exported latents are the SAE's own, row for row, and the CSV says the same."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from medsae.io import UserError
from medsae.polysemy import topk
from medsae.polysemy.topk import (
    PUBLISHED_COLUMNS,
    export_shards,
    export_topk,
    read_rows,
    write_topk_csv,
)
from medsae.sae import SAEConfig, SparseAutoencoder, build_sae, normalized_values
from medsae.store import ShardWriter

TEXT = "Acute renal failure 👍 failure"
OFFSETS = [(0, 5), (5, 11), (11, 19), (19, 21), (20, 21), (21, 29)]
K = 4


@pytest.fixture
def sae() -> SparseAutoencoder:
    torch.manual_seed(0)
    model = build_sae(SAEConfig(n_latents=32, k=8), 16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.feature_scale = torch.rand(32) + 0.5
    return model


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Activations and tokens of one note, three times over."""
    n = 3 * len(OFFSETS)
    activations = tmp_path / "activations.safetensors"
    with ShardWriter(activations, n, 16, torch.float32, {}) as writer:
        writer.write(0, torch.randn(n, 16, generator=torch.Generator().manual_seed(1)))
    tokens = tmp_path / "tokens.parquet"
    pl.DataFrame(
        {
            "doc_id": np.repeat(["a", "b", "c"], len(OFFSETS)),
            "patient_id": ["p"] * n,
            "token_index": np.tile(np.arange(len(OFFSETS)), 3).astype(np.uint32),
            "token_id": np.arange(n).astype(np.int32),
            "char_start": np.tile([start for start, _ in OFFSETS], 3).astype(np.uint32),
            "char_end": np.tile([end for _, end in OFFSETS], 3).astype(np.uint32),
        }
    ).write_parquet(tokens)
    return activations, tokens


@pytest.mark.parametrize("block_rows", [5, 8192])
def test_exported_latents_are_those_of_the_encoder(
    sae: SparseAutoencoder, files: tuple[Path, Path], tmp_path: Path, monkeypatch, block_rows: int
):
    monkeypatch.setattr(topk, "BLOCK_ROWS", block_rows)
    activations, tokens = files
    path = tmp_path / "train-00000.parquet"
    assert export_topk(activations, tokens, sae, K, path) == 18
    table = pl.read_parquet(path)
    assert table.select(pl.read_parquet(tokens).columns).equals(pl.read_parquet(tokens))
    assert table.schema["latent_ids"] == pl.List(pl.Int32)
    assert table.schema["z_values"] == table.schema["z_values_norm"] == pl.List(pl.Float32)

    from medsae.store import open_shard

    values, indices = sae.encode(open_shard(activations).read(0, 18), k=K)
    scaled = normalized_values(values, indices, sae.feature_scale)
    for row in range(18):
        n = int((values[row] > 0).sum())
        assert table["latent_ids"][row].to_list() == indices[row, :n].tolist()
        assert table["z_values"][row].to_list() == pytest.approx(values[row, :n].tolist())
        assert table["z_values_norm"][row].to_list() == pytest.approx(scaled[row, :n].tolist())
        assert table["z_values"][row].to_list() == sorted(table["z_values"][row], reverse=True)


def test_a_killed_export_goes_on_after_its_last_shard(
    sae: SparseAutoencoder, files: tuple[Path, Path], tmp_path: Path, monkeypatch
):
    activations, tokens, parts = tmp_path / "activations", tmp_path / "tokens", tmp_path / "parts"
    for folder, source in ((activations, files[0]), (tokens, files[1])):
        folder.mkdir()
        for name in ("train-00000", "train-00001", "val-00000"):
            shutil.copy(source, folder / f"{name}{source.suffix}")
    shards = sorted(activations.iterdir()), sorted(tokens.iterdir())
    export_shards(*shards, sae, K, tmp_path / "whole")

    class Killed(BaseException):
        pass

    done = []

    def once(*arguments):
        if done:
            raise Killed
        done.append(arguments)
        return export_topk(*arguments)

    monkeypatch.setattr(topk, "export_topk", once)
    with pytest.raises(Killed):
        export_shards(*shards, sae, K, parts)
    (first,) = parts.iterdir()
    written = first.stat().st_mtime_ns
    monkeypatch.setattr(topk, "export_topk", export_topk)
    export_shards(*shards, sae, K, parts)
    assert first.stat().st_mtime_ns == written
    for path in sorted((tmp_path / "whole").iterdir()):
        assert path.read_bytes() == (parts / path.name).read_bytes()

    with pytest.raises(UserError, match="shard val-00000"):
        export_shards(shards[0], shards[1][:2], sae, K, parts)


def test_unequal_lengths_and_uncalibrated_saes_are_refused(
    sae: SparseAutoencoder, files: tuple[Path, Path], tmp_path: Path
):
    activations, tokens = files
    short = tmp_path / "short.parquet"
    pl.read_parquet(tokens).head(3).write_parquet(short)
    with pytest.raises(UserError, match="18 rows for the 3 tokens"):
        export_topk(activations, short, sae, K, tmp_path / "out.parquet")
    sae.feature_scale = None
    with pytest.raises(UserError, match="not calibrated"):
        export_topk(activations, tokens, sae, K, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_rows_are_read_by_number(tmp_path: Path):
    path = tmp_path / "t.parquet"
    pl.DataFrame({"x": range(100)}).write_parquet(path, row_group_size=7)
    found = read_rows(path, pl.Series([90, 3, 3, 50]), ["x"])
    assert found["row"].to_list() == found["x"].to_list() == [3, 50, 90]


def test_the_csv_has_a_row_per_token_of_each_occurrence(
    sae: SparseAutoencoder, files: tuple[Path, Path], tmp_path: Path
):
    activations, tokens = files
    path = tmp_path / "train-00000.parquet"
    export_topk(activations, tokens, sae, K, path)
    notes = tmp_path / "notes.parquet"
    pl.DataFrame(
        {"doc_id": list("abc"), "text": [TEXT] * 3, "shard": ["train-00000"] * 3}
    ).write_parquet(notes)
    occurrences = pl.DataFrame(
        {
            "occurrence_id": pl.Series([0, 1, 2], dtype=pl.UInt32),
            "doc_id": ["a", "b", "b"],
            "lemma": ["failure", "renal failure", "failure"],
            "sense": ["renal", None, "cardiac"],
            "shard": ["train-00000"] * 3,
            "row_start": pl.Series([2, 7, 11], dtype=pl.UInt64),
            "row_end": pl.Series([3, 9, 12], dtype=pl.UInt64),
        }
    )
    out = tmp_path / "topk_latents.csv"
    n_rows = write_topk_csv(occurrences, [path], notes, out, k=K, model="m", layer=6, sae="s")
    with out.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert n_rows == len(rows) == 4
    assert tuple(rows[0]) == PUBLISHED_COLUMNS
    assert [row["token_str"] for row in rows] == [" failure", " renal", " failure", " failure"]
    assert [row["sense"] for row in rows] == ["renal", "", "", "cardiac"]
    assert [row["batch_idx"] for row in rows] == ["2", "7", "8", "11"]
    assert [row["position"] for row in rows] == ["2", "1", "2", "5"]
    assert {(row["K"], row["model"], row["layer"], row["sae"]) for row in rows} == {
        ("4", "m", "6", "s")
    }
    table = pl.read_parquet(path)
    for row in rows:
        here = table.row(int(row["batch_idx"]), named=True)
        assert json.loads(row["latent_ids_json"]) == here["latent_ids"]
        assert json.loads(row["z_values_json"]) == pytest.approx(here["z_values"])
        assert json.loads(row["z_values_norm_json"]) == pytest.approx(here["z_values_norm"])
