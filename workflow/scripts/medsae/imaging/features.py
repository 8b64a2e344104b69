"""Sparse features of every slice: the positive activations of a trained SAE."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from medsae.io import UserError, atomic_path, progress
from medsae.sae import SparseAutoencoder
from medsae.store import open_shard

SCHEMA = pa.schema(
    [
        ("slice_key", pa.string()),
        ("split", pa.string()),
        ("latent_ids", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float32())),
    ]
)
TOKENS_PER_BATCH = 65_536


def encode_features(
    slices: pl.DataFrame, folder: str | Path, sae: SparseAutoencoder, path: str | Path
) -> None:
    """Write slice_key, split, latent_ids (ascending) and values (> 0) of every slice.

    Rows are those of ``slices``, scan by scan; ``folder`` holds one shard per scan. Where a
    shard has several rows per slice, its patch tokens, a latent's value is the largest over
    the patches. Raises ``UserError`` naming the shard if its rows do not fit the slices.
    """
    scans = slices.partition_by("scan", maintain_order=True)
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
        for rows in progress(scans, "features: scans"):
            shard = open_shard(Path(folder) / f"{rows['scan'][0]}.safetensors")
            per_slice, rest = divmod(shard.n_rows, rows.height)
            if rest or not per_slice:
                raise UserError(
                    f"{shard.path}: {shard.n_rows} rows for {rows.height} slices; embed again."
                )
            step = max(1, TOKENS_PER_BATCH // per_slice)
            for start in range(0, rows.height, step):
                part = rows.slice(start, step)
                tokens = shard.read(start * per_slice, (start + part.height) * per_slice)
                ids, values, counts = largest_per_slice(sae, tokens, part.height)
                writer.write_batch(_batch(part, ids, values, counts))


def largest_per_slice(
    sae: SparseAutoencoder, tokens: Tensor, n_slices: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents, values and their number per slice of ``tokens`` [n_slices · p, d]."""
    code = sae.sparse_code(tokens)
    positive = code.values > 0
    per_slice = tokens.shape[0] // n_slices
    owner = (code.pattern.tokens[positive].long() // per_slice).cpu()
    latent = code.pattern.columns[positive].long().cpu()
    values = code.values[positive].float().cpu()
    n = sae.config.n_latents
    place, index = torch.unique(owner * n + latent, return_inverse=True)  # sorted
    largest = torch.zeros(place.numel()).scatter_reduce_(0, index, values, "amax")
    counts = torch.bincount(place // n, minlength=n_slices)
    return (place % n).to(torch.int32).numpy(), largest.numpy(), counts.numpy()


def _batch(
    rows: pl.DataFrame, ids: np.ndarray, values: np.ndarray, counts: np.ndarray
) -> pa.RecordBatch:
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    keys: Sequence[pa.Array] = [
        pa.array(rows[name].to_list(), pa.string()) for name in ("slice_key", "split")
    ]
    lists = [
        pa.ListArray.from_arrays(offsets, pa.array(ids, pa.int32())),
        pa.ListArray.from_arrays(offsets, pa.array(values, pa.float32())),
    ]
    return pa.RecordBatch.from_arrays([*keys, *lists], schema=SCHEMA)
