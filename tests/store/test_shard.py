import os
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from medsae.io import UserError
from medsae.store import ShardWriter, open_shard


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_written_in_any_order_is_read_back(tmp_path, dtype):
    rows = torch.randn(10_000, 96, generator=torch.Generator().manual_seed(0)).to(dtype)
    path = tmp_path / "a.safetensors"
    order = torch.randperm(7_000, generator=torch.Generator().manual_seed(1))
    with ShardWriter(path, 10_000, 96, dtype, {"layer": "12"}) as writer:
        for part in order.split(999):
            writer.scatter(part, rows[part])
        writer.write(7_000, rows[7_000:])
    shard = open_shard(path)
    assert (shard.n_rows, shard.n_columns, shard.dtype) == (10_000, 96, dtype)
    assert shard.metadata == {"layer": "12"}
    assert torch.equal(shard[:], rows)
    assert torch.equal(shard[123:4567], rows[123:4567])
    assert torch.equal(shard.read(123, 4567), rows[123:4567])
    assert torch.equal(shard.rows(order[:50]), rows[order[:50]])
    shard.verify()


def test_a_shard_is_an_ordinary_safetensors_file(write_shards):
    (path,) = write_shards([100])
    with safe_open(path, framework="pt") as file:
        assert torch.equal(file.get_tensor("activations"), open_shard(path)[:])
        assert file.metadata()["shard"] == "0"


def test_a_foreign_safetensors_matrix_can_be_read(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"activations": torch.ones(5, 2)}, path)
    assert torch.equal(open_shard(path).read(0, 5), torch.ones(5, 2))


def test_slices_are_views_of_the_file_not_copies(write_shards):
    (path,) = write_shards([100])
    rows = open_shard(path)[3:7]
    with path.open("r+b") as file:
        file.seek(-93 * 3 * 4 - 4, os.SEEK_END)  # the last number of row 6
        file.write(struct.pack("<f", 8.5))
    assert rows[:, 2].tolist() == [0.5, 0.5, 0.5, 8.5]


def test_an_empty_shard_round_trips(tmp_path):
    path = tmp_path / "empty.safetensors"
    with ShardWriter(path, 0, 4, torch.float32, {}):
        pass
    shard = open_shard(path)
    assert shard[:].shape == (0, 4) and shard.read(0, 0).shape == (0, 4)
    shard.verify()


def test_missing_rows_are_named_and_nothing_is_left(tmp_path):
    with (
        pytest.raises(UserError, match="2 of 5 rows were never written, the first is row 3"),
        ShardWriter(tmp_path / "a.safetensors", 5, 2, torch.float32, {}) as writer,
    ):
        writer.write(0, torch.ones(3, 2))
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_body_leaves_the_old_shard(write_shards):
    (path,) = write_shards([4])
    before = path.read_bytes()
    with pytest.raises(RuntimeError), ShardWriter(path, 9, 3, torch.float32, {}) as writer:
        writer.write(0, torch.ones(9, 3))
        raise RuntimeError
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_the_leavings_of_a_killed_writer_are_removed(tmp_path):
    stale = tmp_path / ".a.1.tmp.safetensors"
    stale.write_bytes(b"half a shard")
    with ShardWriter(tmp_path / "a.safetensors", 1, 1, torch.float32, {}) as writer:
        writer.write(0, torch.ones(1, 1))
    assert not stale.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_a_row_that_cannot_be_stored_finite_is_named(tmp_path, value):
    rows = torch.ones(6, 2)
    rows[4, 1] = value
    with (
        pytest.raises(UserError, match=r"a\.safetensors: row 14 holds NaN or Inf"),
        ShardWriter(tmp_path / "a.safetensors", 20, 2, torch.float16, {}) as writer,
    ):
        writer.write(10, rows)


def test_large_finite_rows_are_not_mistaken_for_infinite(tmp_path):
    path = tmp_path / "a.safetensors"
    with ShardWriter(path, 4, 2, torch.bfloat16, {}) as writer:
        writer.write(0, torch.full((4, 2), 3e38))
    open_shard(path).verify()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_in_a_foreign_shard_names_shard_and_row(tmp_path, value):
    path = tmp_path / "foreign.safetensors"
    rows = torch.ones(900, 2)
    rows[817, 0] = value
    save_file({"activations": rows}, path)
    with pytest.raises(UserError, match=r"foreign\.safetensors: row 817 holds NaN or Inf"):
        open_shard(path).read(800, 900)


def test_a_flipped_bit_is_found_wherever_it_lies(tmp_path):
    path = tmp_path / "a.safetensors"
    with ShardWriter(path, 9_000, 96, torch.float32, {"layer": "12"}) as writer:
        writer.write(0, torch.ones(9_000, 96))
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    row = 7_000
    for offset in (header + row * 96 * 4 + 1, whole.index(b'"12"') + 1, whole.index(b"crc32") + 9):
        damaged = bytearray(whole)
        damaged[offset] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"a\.safetensors"):
            open_shard(path).verify()
    with pytest.raises(UserError, match="checksum"):
        path.write_bytes(whole[: header + row * 96 * 4] + b"\x01" + whole[header + row * 384 + 1 :])
        open_shard(path).read(row, row + 1)


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_a_truncated_shard_is_named(write_shards, keep):
    (path,) = write_shards([100])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"000\.safetensors"):
        open_shard(path)


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.safetensors: there is no such shard"):
        open_shard(tmp_path / "nothing.safetensors")
