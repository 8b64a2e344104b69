"""Embeddings follow the slices row for row, and a rerun does only what is missing."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from medsae.imaging.embed import embed_scans, encoder_fingerprint
from medsae.imaging.features import encode_features
from medsae.imaging.slicing import write_slices
from medsae.io import UserError
from medsae.sae import SAEConfig, build_sae
from medsae.store import ShardWriter, open_shard
from tests.imaging.scans.conftest import write_scan


class MeanAndCorners:
    """Embeds a slice as its mean and its index of brightness; four patches are its quarters."""

    width, n_patches = 3, 4

    def __init__(self, fail_on=None):
        self.calls, self.fail_on = 0, fail_on

    def __call__(self, pixels):
        self.calls += 1
        if self.calls == self.fail_on:
            raise KeyboardInterrupt
        x = pixels.float()
        half = x.shape[-1] // 2
        quarters = x.unfold(1, half, half).unfold(2, half, half).mean((-1, -2)).flatten(1)
        patches = torch.stack([quarters, quarters**2, torch.ones_like(quarters)], -1)
        return patches.mean(1), patches


@pytest.fixture
def sliced(tmp_path, settings):
    small = replace(settings, max_per_plane=7)
    tables = [write_slices(tmp_path / "slices", write_scan(tmp_path, n), small) for n in "abc"]
    return tmp_path / "slices", pl.concat(tables).with_columns(split=pl.lit("train"))


def embed(folder, encoder, mark="m", patches=True, batch_size=4, out="out"):
    place = folder.parent / out
    return embed_scans(
        ["ct-a", "ct-b", "ct-c"], folder, encoder, mark, place / "embeddings",
        place / "patches" if patches else None, batch_size, "float32",
    )  # fmt: skip


def test_rows_follow_the_slices_whatever_the_batch(sliced):
    folder, _ = sliced
    status = embed(folder, MeanAndCorners())
    embed(folder, MeanAndCorners(), batch_size=1, out="one")
    assert status["n_slices"].to_list() == [21, 21, 21]
    for scan in ("ct-a", "ct-b", "ct-c"):
        for kind, per_slice in (("embeddings", 1), ("patches", 4)):
            one = open_shard(folder.parent / f"out/{kind}/{scan}.safetensors")
            other = open_shard(folder.parent / f"one/{kind}/{scan}.safetensors")
            assert torch.equal(one[:], other[:])
            assert one.n_rows == 21 * per_slice
        pooled = open_shard(folder.parent / f"out/embeddings/{scan}.safetensors")[:]
        patches = open_shard(folder.parent / f"out/patches/{scan}.safetensors")[:]
        assert torch.allclose(patches.view(21, 4, 3).mean(1), pooled)


def test_a_killed_run_goes_on_where_it_was(sliced):
    folder, _ = sliced
    embed(folder, MeanAndCorners(), out="whole")
    with pytest.raises(KeyboardInterrupt):
        embed(folder, MeanAndCorners(fail_on=9))  # six batches per scan: within the second
    written = sorted(path.name for path in (folder.parent / "out/embeddings").iterdir())
    assert written == ["ct-a.safetensors"]  # nothing half-written
    encoder = MeanAndCorners()
    embed(folder, encoder)
    assert encoder.calls == 12
    for path in (folder.parent / "whole").rglob("*.safetensors"):
        assert (
            path.read_bytes()
            == (folder.parent / "out" / path.relative_to(folder.parent / "whole")).read_bytes()
        )


def test_only_what_changed_is_embedded_again(sliced, settings):
    folder, _ = sliced
    embed(folder, MeanAndCorners())
    encoder = MeanAndCorners()
    embed(folder, encoder)
    assert encoder.calls == 0
    scan = write_scan(folder.parent, "b", sex="f")
    write_slices(folder, scan, replace(settings, max_per_plane=7))
    embed(folder, encoder)
    assert encoder.calls == 6  # of scan b
    embed(folder, encoder, mark="another encoder")
    assert encoder.calls == 6 + 18
    path = folder.parent / "out/embeddings/ct-c.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    embed(folder, encoder, mark="another encoder")
    assert encoder.calls == 6 + 18 + 6


def test_the_fingerprint_of_an_encoder_is_that_of_its_weights(tmp_path):
    (tmp_path / "weights").write_bytes(b"1")
    one = encoder_fingerprint(str(tmp_path), {"layer": 8})
    assert one == encoder_fingerprint(str(tmp_path), {"layer": 8})
    assert one != encoder_fingerprint(str(tmp_path), {"layer": 7})
    (tmp_path / "weights").write_bytes(b"2")
    assert one != encoder_fingerprint(str(tmp_path), {"layer": 8})


def sae_of(width):
    torch.manual_seed(0)
    config = SAEConfig("matryoshka", n_latents=16, k=3, normalization="none",
                       options={"prefixes": [4, 16]})  # fmt: skip
    sae = build_sae(config, width)
    with torch.no_grad():
        sae.W_enc.normal_()
        sae.threshold.fill_(0.5)
    return sae


def write(path, rows):
    with ShardWriter(path, len(rows), rows.shape[1], torch.float32, {}) as writer:
        writer.write(0, rows)


def slices_table(scans):
    rows = [(f"{scan}/{i}", scan, "train") for scan, n in scans for i in range(n)]
    return pl.DataFrame(rows, schema=["slice_key", "scan", "split"], orient="row")


def dense(frame, n):
    out = np.zeros((frame.height, n), np.float32)
    for row, (ids, values) in enumerate(zip(frame["latent_ids"], frame["values"], strict=True)):
        out[row, ids.to_numpy()] = values.to_numpy()
    return out


def test_features_are_the_positive_activations_in_the_order_of_the_slices(tmp_path):
    sae, rows = sae_of(6), {scan: torch.randn(n, 6) for scan, n in (("a", 5), ("b", 3))}
    for scan, part in rows.items():
        write(tmp_path / f"{scan}.safetensors", part)
    slices = slices_table([("a", 5), ("b", 3)])
    encode_features(slices, tmp_path, sae, tmp_path / "features.parquet")
    found = pl.read_parquet(tmp_path / "features.parquet")
    assert found.columns == ["slice_key", "split", "latent_ids", "values"]
    assert found["slice_key"].equals(slices["slice_key"])
    values, ids = sae.encode(torch.cat([*rows.values()]), k=16)
    expected = torch.zeros(8, 16).scatter_reduce_(1, ids, values, "amax")
    assert np.allclose(dense(found, 16), expected.numpy())
    assert all(ids.is_sorted() for ids in found["latent_ids"])


def test_a_slice_has_the_largest_activation_of_its_patches(tmp_path):
    sae, patches = sae_of(6), torch.randn(5 * 4, 6)
    write(tmp_path / "a.safetensors", patches)
    encode_features(slices_table([("a", 5)]), tmp_path, sae, tmp_path / "f.parquet")
    values, ids = sae.encode(patches, k=16)
    expected = torch.zeros(20, 16).scatter_reduce_(1, ids, values, "amax").view(5, 4, 16).amax(1)
    assert np.allclose(dense(pl.read_parquet(tmp_path / "f.parquet"), 16), expected.numpy())


def test_embeddings_of_other_slices_are_refused(tmp_path):
    write(tmp_path / "a.safetensors", torch.randn(7, 6))
    with pytest.raises(UserError, match="7 rows for 5 slices"):
        encode_features(slices_table([("a", 5)]), tmp_path, sae_of(6), tmp_path / "f.parquet")
