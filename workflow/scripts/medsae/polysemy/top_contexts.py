"""The strongest contexts of every latent, from one pass over the exported top latents.

Per latent the ``N_CONTEXTS`` tokens with the largest activation, at most one per document.
The activations that can still enter are those above the last of a latent's current
contexts, so after the first batches almost everything is discarded by one comparison; memory
holds the contexts, a batch, and one count per latent and entity label.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from medsae.io import UserError, progress

N_CONTEXTS = 20
MAX_LABELS = 62
"""Labels of a token are the bits of one integer."""

BATCH_ENTRIES = 1 << 22
"""Activations read at once."""

MIN_ROWS = 1024
MERGE_ROWS = 1 << 20
"""Candidates that are collected before they are merged with the best."""

COLUMNS = ("doc_id", "token_index", "char_start", "char_end")
LATENTS = ("latent_ids", "z_values", "z_values_norm")

CONTEXTS = pl.Schema(
    {
        "latent_id": pl.Int64,
        "z": pl.Float32,
        "z_norm": pl.Float32,
        "document": pl.Int64,
        "position": pl.Int64,
        "char_start": pl.Int64,
        "char_end": pl.Int64,
        "label": pl.Int64,
    }
)
"""``document`` counts the documents in corpus order; ``position`` is the token's index."""


@dataclass(frozen=True)
class TopContexts:
    """``contexts``: `CONTEXTS` and ``rank``, by latent and rank; ``documents``: their names.

    ``firings`` [n_latents] and ``label_firings`` [n_latents, n_labels]: exported tokens on
    which a latent is active, and those of them inside an entity of a label. Column ``label``
    of the contexts is a bit mask over ``labels``.
    """

    contexts: pl.DataFrame
    documents: list[str]
    labels: list[str]
    firings: np.ndarray
    label_firings: np.ndarray
    n_tokens: int


def find_top_contexts(topk: Sequence[str | Path], spans: str | Path, n_latents: int) -> TopContexts:
    """Read the shards ``topk`` in order; ``spans``: entity spans aligned to tokens (Parquet)."""
    entities = pl.scan_parquet(spans).select(
        pl.col("doc_id").cast(pl.String),
        pl.int_ranges("token_start", "token_end").alias("token_index"),
        pl.col("entity_group").cast(pl.String),
    )
    labels = entities.select("entity_group").unique().collect()["entity_group"].sort().to_list()
    if len(labels) > MAX_LABELS:
        raise UserError(
            f"{spans} has {len(labels)} entity labels, more than {MAX_LABELS}: shorten ner.labels"
        )
    bits = entities.with_columns(
        pl.col("entity_group").replace_strict(labels, range(len(labels)), return_dtype=pl.Int64)
    )
    contexts = _Contexts(n_latents)
    firings = np.zeros(n_latents, dtype=np.int64)
    label_firings = np.zeros((n_latents, len(labels)), dtype=np.int64)
    documents: list[str] = []
    number: dict[str, int] = {}
    n_tokens = 0
    for batch in progress(_batches(topk), "Top contexts, batches", _count(topk)):
        tokens = pl.DataFrame(batch.select(COLUMNS)).with_columns(pl.col("doc_id").cast(pl.String))
        for name in tokens["doc_id"].unique(maintain_order=True):
            if name not in number:
                number[name] = len(documents)
                documents.append(name)
        lists = [batch.column(name) for name in LATENTS]
        ids, z, z_norm = (column.flatten().to_numpy() for column in lists)
        row = np.repeat(np.arange(len(tokens)), np.diff(lists[0].offsets.to_numpy()))
        mask = _label_masks(tokens, bits)
        firings += np.bincount(ids, minlength=n_latents)
        inside = np.flatnonzero(mask[row])
        masks, inside_ids = mask[row[inside]], ids[inside]
        for label in range(len(labels)):
            hits = inside_ids[(masks >> label) & 1 == 1]
            label_firings[:, label] += np.bincount(hits, minlength=n_latents)
        places = tokens.select(
            pl.col("doc_id").replace_strict(number, return_dtype=pl.Int64).alias("document"),
            pl.col("token_index").alias("position"),
            *("char_start", "char_end"),
            pl.Series("label", mask),
        )
        contexts.add(ids, z, z_norm, row, places)
        n_tokens += len(tokens)
    return TopContexts(contexts.table(), documents, labels, firings, label_firings, n_tokens)


class _Contexts:
    """The best contexts so far, and candidates that wait to be merged with them.

    Candidates come in corpus order and sorting is stable, so that among equal activations
    the earlier token wins, however the corpus is cut into batches.
    """

    def __init__(self, n_latents: int) -> None:
        self._best = pl.DataFrame(schema={**CONTEXTS, "key": pl.Int64, "rank": pl.Int64})
        self._waiting: list[pl.DataFrame] = []
        self._threshold = np.full(n_latents, -np.inf, dtype=np.float32)

    def add(
        self,
        ids: np.ndarray,
        z: np.ndarray,
        z_norm: np.ndarray,
        row: np.ndarray,
        places: pl.DataFrame,
    ) -> None:
        """Activations [n] of the tokens ``places[row]``."""
        kept = np.flatnonzero(z > self._threshold[ids])
        ids, z = ids[kept].astype(np.int64), z[kept].astype(np.float32)
        columns = pl.DataFrame(
            {
                "latent_id": ids,
                "z": z,
                "z_norm": z_norm[kept],
                # ascending by latent, then descending by z: bits of positive floats are ordered
                "key": (ids << 32) | (0xFFFFFFFF - z.view(np.uint32).astype(np.int64)),
            }
        )
        self._waiting.append(columns.hstack(places[row[kept]]))
        if sum(part.height for part in self._waiting) >= max(MERGE_ROWS, self._best.height):
            self._merge()

    def table(self) -> pl.DataFrame:
        """`CONTEXTS` and ``rank``, by latent and rank."""
        self._merge()
        return self._best.drop("key")

    def _merge(self) -> None:
        columns = [*CONTEXTS, "key"]
        parts = [part.select(columns).cast(CONTEXTS) for part in (self._best, *self._waiting)]
        pair = pl.col("latent_id") * 2**32 + pl.col("document")
        self._best = (
            pl.concat(parts)
            .sort("key", maintain_order=True)
            .filter(pair.is_first_distinct())
            .with_columns((pl.int_range(pl.len()).over("latent_id") + 1).alias("rank"))
            .filter(pl.col("rank") <= N_CONTEXTS)
        )
        self._waiting = []
        full = self._best.filter(pl.col("rank") == N_CONTEXTS)
        self._threshold[full["latent_id"].to_numpy()] = full["z"].to_numpy()


def _label_masks(tokens: pl.DataFrame, entities: pl.LazyFrame) -> np.ndarray:
    """int64 [n_tokens]: bit i is set where a token is inside an entity of label i."""
    names = tokens["doc_id"].unique()
    inside = (
        entities.filter(pl.col("doc_id").is_in(names.implode()))
        .explode("token_index")
        .select("doc_id", pl.col("token_index").cast(tokens["token_index"].dtype), "entity_group")
        .unique()
        .group_by("doc_id", "token_index")
        .agg((pl.lit(1, pl.Int64) * 2 ** pl.col("entity_group")).sum().alias("mask"))
        .collect()
    )
    joined = tokens.join(inside, on=["doc_id", "token_index"], how="left", maintain_order="left")
    return joined["mask"].fill_null(0).cast(pl.Int64).to_numpy()


def _batches(paths: Sequence[str | Path]) -> Iterator[pa.RecordBatch]:
    for path in paths:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(_rows(file), columns=[*COLUMNS, *LATENTS])


def _count(paths: Sequence[str | Path]) -> int:
    total = 0
    for path in paths:
        with pq.ParquetFile(path) as file:
            total += -(-file.metadata.num_rows // _rows(file))
    return total


def _rows(file: pq.ParquetFile) -> int:
    """Rows that hold about `BATCH_ENTRIES` activations."""
    meta = file.metadata
    names = [meta.schema.column(index).path for index in range(meta.num_columns)]
    column = next(i for i, name in enumerate(names) if name.startswith("latent_ids"))
    entries = sum(meta.row_group(i).column(column).num_values for i in range(meta.num_row_groups))
    return max(MIN_ROWS, BATCH_ENTRIES * meta.num_rows // max(1, entries))
