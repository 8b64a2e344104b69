import pytest
import torch

from medsae.store import ShardWriter


@pytest.fixture
def write_shards(tmp_path):
    """Write rows numbered in their first column, cut into shards of the given sizes."""

    def write(sizes, n_columns=3, dtype=torch.float32, folder="shards"):
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        paths, start = [], 0
        for number, size in enumerate(sizes):
            rows = torch.zeros(size, n_columns, dtype=dtype)
            rows[:, 0] = torch.arange(start, start + size)
            rows[:, 1:] = 0.5
            path = target / f"{number:03d}.safetensors"
            with ShardWriter(path, size, n_columns, dtype, {"shard": str(number)}) as writer:
                writer.write(0, rows)
            paths.append(path)
            start += size
        return paths

    return write
