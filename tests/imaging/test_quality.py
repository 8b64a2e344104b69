"""Quality of an SAE on every split, and SAEs that cannot be used."""

import polars as pl
import pytest
import torch

from medsae.imaging.quality import QUALITY, collapse, read_quality, split_quality
from medsae.sae import SAEConfig, build_sae
from medsae.store import ShardWriter

WIDTH = 6


@pytest.fixture
def study(tmp_path):
    """Two training scans, one of each other split; test rows lie elsewhere."""
    torch.manual_seed(0)
    scans = {"a": "train", "b": "train", "c": "val", "d": "test"}
    rows = {name: torch.randn(40, WIDTH) + (5 if name == "d" else 0) for name in scans}
    for name, data in rows.items():
        with ShardWriter(tmp_path / f"{name}.safetensors", 40, WIDTH, torch.float32, {}) as writer:
            writer.write(0, data)
    table = [(name, split) for name, split in scans.items() for _ in range(40)]
    slices = pl.DataFrame(table, schema=["scan", "split"], orient="row")
    sae = build_sae(SAEConfig(architecture="topk", n_latents=12, k=3, normalization="none"), WIDTH)
    with torch.no_grad():
        directions = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
        sae.W_enc.copy_(directions)
        sae.W_dec.copy_(directions)
    return slices, rows, sae, tmp_path


def test_every_split_has_its_own_numbers(study):
    slices, rows, sae, folder = study
    table = split_quality(slices, folder, sae)
    assert dict(zip(table.columns, table.dtypes, strict=True)) == QUALITY
    assert table["split"].to_list() == ["train", "val", "test"]
    assert table["n_rows"].to_list() == [80, 40, 40]
    for row, names in zip(table.iter_rows(named=True), ("ab", "c", "d"), strict=True):
        x = torch.cat([rows[name] for name in names])
        error = (x - sae.reconstruct(x)).square().sum()
        assert row["fvu"] == pytest.approx(float(error / (x - x.mean(0)).square().sum()), rel=1e-4)
        assert row["l0"] == pytest.approx(3)
    # far from the origin the three largest of six coordinates say less than the mean does
    fvu = dict(table.select("split", "fvu").iter_rows())
    assert fvu["test"] > 1 > fvu["train"]
    assert table.filter(split="test")["dead_fraction"][0] == 0.5


def quality(val_fvu=0.5, dead=0.2, n_varying=8):
    return {
        "train": {"fvu": 0.1, "dead_fraction": dead, "n_varying": 9},
        "val": {"fvu": val_fvu, "dead_fraction": 0.9, "n_varying": n_varying},
    }


def test_what_cannot_be_used_is_said(tmp_path, study):
    assert collapse(quality()) is None
    assert "FVU 1.20" in collapse(quality(val_fvu=1.2))
    assert "FVU nan" in collapse(quality(val_fvu=float("nan")))
    assert "is not defined" in collapse(quality(val_fvu=None))
    assert "96% of its latents" in collapse(quality(dead=0.96))
    assert "on all validation slices or on none" in collapse(quality(n_varying=0))
    slices, _, sae, folder = study
    split_quality(slices, folder, sae).write_csv(tmp_path / "q.csv")
    assert read_quality(tmp_path / "q.csv")["val"]["n_rows"] == 40
