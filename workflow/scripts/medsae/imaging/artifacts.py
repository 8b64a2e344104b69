"""Rows of slices, embeddings and features in one order: that of ``slices.parquet``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from scipy.sparse import coo_array, csr_array, vstack

from medsae.imaging.columns import SCAN, SLICE_KEY, SPLIT, STRUCTURES
from medsae.io import UserError
from medsae.statistics import code_matrix, stream
from medsae.store import ActivationStore

BATCH_ROWS = 8192


def read_slices(path: str | Path) -> pl.DataFrame:
    """``slices.parquet``, with the structures that each scan's masks could have shown.

    These come from ``scans.parquet`` beside it. Raises ``UserError`` if a slice is listed
    twice.
    """
    slices = pl.read_parquet(path)
    scans = Path(path).with_name("scans.parquet")
    if scans.exists():
        shown = pl.read_parquet(scans, columns=[SCAN, STRUCTURES])
        slices = slices.join(shown, on=SCAN, how="left", maintain_order="left")
    twice = slices.filter(pl.col(SLICE_KEY).is_duplicated())
    if twice.height:
        raise UserError(f"{path}: the slice {twice[SLICE_KEY][0]} is listed twice; remove one.")
    return slices


class Embeddings:
    """One embedding per slice: the rows of a store, or the mean of a slice's patch tokens."""

    def __init__(self, store: ActivationStore, per_slice: int) -> None:
        self._store, self._per_slice = store, per_slice
        self.n_columns = store.n_columns

    def rows(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """The embeddings of the slices ``rows`` as float32 [m, d], in that order."""
        first = torch.from_numpy(np.asarray(rows, np.int64))[:, None] * self._per_slice
        tokens = self._store.rows((first + torch.arange(self._per_slice)).flatten())
        return tokens.float().view(len(rows), self._per_slice, -1).mean(1).numpy()


def open_embeddings(folder: str | Path, slices: pl.DataFrame) -> Embeddings:
    """The shards ``folder/{scan}.safetensors`` of all scans, rows as in ``slices``.

    Raises ``UserError`` if they hold no whole number of rows per slice.
    """
    scans = slices[SCAN].unique(maintain_order=True)
    store = ActivationStore([Path(folder) / f"{scan}.safetensors" for scan in scans])
    per_slice, rest = divmod(len(store), max(slices.height, 1))
    if rest or not per_slice:
        raise UserError(
            f"{folder}: {len(store)} embeddings for {slices.height} slices; embed them again."
        )
    return Embeddings(store, per_slice)


def n_latents_of(sae_config: str | Path) -> int:
    """Size of the dictionary, from the SAE's ``cfg.json``."""
    return int(sae_settings(sae_config)["n_latents"])


def sae_settings(sae_config: str | Path) -> dict[str, Any]:
    """The architecture part of an SAE's ``cfg.json``."""
    return json.loads(Path(sae_config).read_text(encoding="utf-8"))["sae"]


def level_sizes(sae_config: str | Path) -> list[int]:
    """Sizes of the nested dictionaries of a matryoshka SAE, ascending; [n_latents] if flat."""
    config = sae_settings(sae_config)
    options = config.get("options") or {}
    sizes = options.get("prefixes") or options.get("sizes") or [config["n_latents"]]
    return sorted(int(size) for size in sizes)


def feature_batches(
    path: str | Path, batch_rows: int = BATCH_ROWS
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]]:
    """Stream ``features.parquet``: (row, latent, activation) of its entries, rows ascending."""
    start = 0
    for batch in pq.ParquetFile(path).iter_batches(batch_rows, columns=["latent_ids", "values"]):
        ids, values = batch.column("latent_ids"), batch.column("values")
        lengths = pc.fill_null(pc.list_value_length(ids), 0).to_numpy(zero_copy_only=False)
        rows = np.repeat(np.arange(start, start + batch.num_rows), lengths)
        yield rows, ids.flatten().to_numpy(), values.flatten().to_numpy()
        start += batch.num_rows


def feature_rows(path: str | Path, rows: NDArray[np.integer], n_latents: int) -> csr_array:
    """The features of ``rows`` (ascending) as CSR [m, n_latents]; the file is streamed."""
    chosen = np.asarray(rows, np.int64)
    parts = []
    start = 0
    columns = ["latent_ids", "values"]
    for batch in pq.ParquetFile(path).iter_batches(BATCH_ROWS, columns=columns):
        low, high = np.searchsorted(chosen, [start, start + batch.num_rows])
        if high > low:
            table = pl.DataFrame(batch)[chosen[low:high] - start]
            parts.append(code_matrix(table["latent_ids"], table["values"], n_latents))
        start += batch.num_rows
    if not parts:
        return csr_array((0, n_latents), dtype=np.float32)
    return csr_array(vstack(parts, format="csr"))


def feature_columns(path: str | Path, features: NDArray[np.integer], n_rows: int) -> csr_array:
    """The columns ``features`` of all ``n_rows`` slices as CSR [n_rows, m]; streamed."""
    place = np.full(int(np.max(features, initial=-1)) + 2, -1)
    place[features] = np.arange(len(features))
    parts = []
    for row, latent, value in feature_batches(path):
        column = place[np.minimum(latent, len(place) - 1)]
        kept = column >= 0
        parts.append((row[kept], column[kept], value[kept]))
    row, column, value = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return csr_array(coo_array((value, (row, column)), shape=(n_rows, len(features))))


def rows_of_split(slices: pl.DataFrame, *splits: str) -> NDArray[np.int64]:
    """Rows of any of ``splits``, ascending."""
    return np.flatnonzero(slices[SPLIT].is_in(splits).fill_null(False).to_numpy())


def sample_rows(
    slices: pl.DataFrame, rows: NDArray[np.integer], limit: int, seed: int
) -> NDArray[np.int64]:
    """At most ``limit`` of ``rows``, ascending, drawn in proportion from each scan and plane."""
    rows = np.asarray(rows, np.int64)
    if len(rows) <= limit:
        return np.sort(rows)
    stratum = slices[rows].select(pl.struct(SCAN, "plane").rank("dense"))[:, 0].to_numpy()
    rng = stream(seed, "sampled slices", limit)
    order = np.lexsort((rng.random(len(rows)), stratum))
    # every (n / limit)-th of the shuffled strata, from a random start: shares within one slice
    picks = np.floor((np.arange(limit) + rng.random()) * len(rows) / limit).astype(np.int64)
    return np.sort(rows[order[picks]])


class SliceImages:
    """Pixels and masks of slices, read one by one from ``folder/{scan}.safetensors``."""

    def __init__(self, folder: str | Path, slices: pl.DataFrame) -> None:
        self._folder = Path(folder)
        place = slices.select(pl.col(SCAN), pl.int_range(pl.len()).over(SCAN).alias("row"))
        self._places = place.rows()

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """The slice ``row`` of ``slices.parquet`` as uint8 [h, w]."""
        scan, place = self._places[row]
        with safe_open(str(self._path(scan)), "pt") as file:
            return file.get_slice("pixels")[place].numpy()

    def mask(self, row: int, structure: str) -> NDArray[np.bool_] | None:
        """Where the slice ``row`` shows ``structure`` [h, w]; None without a mask of it."""
        scan, place = self._places[row]
        with safe_open(str(self._path(scan)), "pt") as file:
            names = json.loads((file.metadata() or {}).get("organs", "{}"))
            labels = [int(label) for label, name in names.items() if name == structure]
            if "mask" not in set(file.keys()) or not labels:
                return None
            return np.isin(file.get_slice("mask")[place].numpy(), labels)

    def _path(self, scan: str) -> Path:
        path = self._folder / f"{scan}.safetensors"
        if not path.exists():
            raise UserError(f"{path}: the slices of this scan are missing; cut them again.")
        return path
