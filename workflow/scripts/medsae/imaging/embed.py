"""Embeddings of a scan's slices, as one shard per scan that is either whole or absent.

Row i of ``embeddings/{scan}.safetensors`` belongs to row i of ``slices/{scan}.parquet``;
``patches/{scan}.safetensors`` holds n_patches rows for each. A shard carries the fingerprint
of its slices and of the encoder: a rerun keeps those that fit and writes the others.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors import safe_open
from torch import Tensor

from medsae.imaging.encoders import Encoder
from medsae.imaging.slicing import stored_fingerprint
from medsae.io import UserError, progress
from medsae.store import ShardWriter, open_shard

FINGERPRINT = "fingerprint"
HASH_BYTES = 1 << 20


def encoder_fingerprint(source: str, settings: Mapping[str, Any]) -> str:
    """Changes with the encoder's settings and, for a folder, with the content of its files."""
    digest = hashlib.sha256(json.dumps([source, dict(settings)], sort_keys=True).encode())
    folder = Path(source)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        digest.update(path.name.encode())
        with path.open("rb") as handle:
            while block := handle.read(HASH_BYTES):
                digest.update(block)
    return digest.hexdigest()[:16]


def embed_scans(
    scans: list[str],
    slices: str | Path,
    encoder: Encoder,
    mark: str,
    embeddings: str | Path,
    patches: str | Path | None,
    batch_size: int,
    store_dtype: str,
) -> pl.DataFrame:
    """Embed the slices of ``scans`` in the folder ``slices``, except what is done already.

    ``mark`` is the encoder's fingerprint; without ``patches`` no patch tokens are kept.
    Returns scan, n_slices and fingerprint of every shard. Raises ``UserError`` naming scan
    and row if an embedding is NaN or infinite.
    """
    rows = []
    for scan in progress(scans, "scans embedded"):
        table = Path(slices) / f"{scan}.parquet"
        whole = f"{stored_fingerprint(table)}-{mark}-{store_dtype}"
        n = pl.scan_parquet(table).select(pl.len()).collect().item()
        targets = {Path(embeddings) / f"{scan}.safetensors": n}
        if patches is not None:
            targets[Path(patches) / f"{scan}.safetensors"] = n * encoder.n_patches
        if not all(_is_done(path, whole, n_rows) for path, n_rows in targets.items()):
            _embed_scan(Path(slices) / f"{scan}.safetensors", encoder, targets, whole, batch_size,
                        getattr(torch, store_dtype))  # fmt: skip
        rows.append((scan, n, whole))
    schema = {"scan": pl.String, "n_slices": pl.UInt32, FINGERPRINT: pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def pixel_batches(path: Path, batch_size: int) -> Iterator[tuple[int, Tensor]]:
    """(first row, pixels uint8 [m, side, side]) of a scan's slices, in order."""
    with safe_open(str(path), "pt") as file:
        pixels = file.get_slice("pixels")
        n = pixels.get_shape()[0]
        for start in range(0, n, batch_size):
            yield start, pixels[start : min(start + batch_size, n)]


def _is_done(path: Path, mark: str, n_rows: int) -> bool:
    if not path.exists():
        return False
    try:
        shard = open_shard(path)
    except UserError:  # cut short by a failing disk; shards of killed runs do not appear
        return False
    return shard.metadata.get(FINGERPRINT) == mark and shard.n_rows == n_rows


def _embed_scan(
    pixels: Path,
    encoder: Encoder,
    targets: Mapping[Path, int],
    mark: str,
    batch_size: int,
    dtype: torch.dtype,
) -> None:
    facts = {FINGERPRINT: mark, "scan": pixels.stem}
    with ExitStack() as stack:
        writers = [
            stack.enter_context(ShardWriter(path, n_rows, encoder.width, dtype, facts))
            for path, n_rows in targets.items()
        ]
        for start, batch in pixel_batches(pixels, batch_size):
            pooled, tokens = encoder(batch)
            writers[0].write(start, pooled)
            for writer in writers[1:]:
                writer.write(start * encoder.n_patches, tokens.flatten(0, 1))
