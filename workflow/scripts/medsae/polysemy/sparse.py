"""The latents of each term's occurrences as a sparse matrix, one term in memory at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array

from medsae.polysemy.columns import POLYSEMOUS
from medsae.statistics import code_matrix, codes_of

TABLE_COLUMNS = (
    "occurrence_id",
    "doc_id",
    "patient_id",
    "kind",
    "lemma",
    "sense",
    "char_start",
    "char_end",
    "shard",
    "row_start",
    "row_end",
)


@dataclass(frozen=True)
class LemmaLatents:
    """Occurrences of one term, sorted by patient, note and position.

    ``codes`` [n, n_latents] float32: row i holds the positive activations of occurrence i,
    stored in descending order within the row (so ``codes.indices`` is not sorted by id).
    """

    lemma: str
    kind: str
    table: pl.DataFrame
    codes: csr_array

    def __len__(self) -> int:
        return len(self.table)

    @property
    def patient(self) -> NDArray[np.intp]:
        """Patient codes 0 … P − 1 [n], ascending."""
        return codes_of(self.table["patient_id"])

    def take(self, rows: NDArray) -> "LemmaLatents":
        """The occurrences ``rows`` (ascending indices or a mask), in their order."""
        index = np.flatnonzero(rows) if rows.dtype == bool else rows
        return replace(self, table=self.table[index], codes=self.codes[index])


@dataclass(frozen=True)
class SenseSample:
    """The occurrences of a term whose sense is known and frequent enough to speak of.

    ``senses``: their names, sorted; ``label`` [n]: index into them. ``reason`` says why
    nothing can be estimated, and is None when something can.
    """

    latents: LemmaLatents
    senses: tuple[str, ...]
    label: NDArray[np.int8]
    reason: str | None


def read_lemmas(
    latents: str | Path | pl.DataFrame,
    values: str = "z_values",
    kinds: tuple[str, ...] | None = None,
) -> Iterator[LemmaLatents]:
    """Yield each term of ``occurrence_latents.parquet`` (or its rows) in alphabetical order.

    ``values``: which column fills ``codes`` (z_values or z_values_norm).
    """
    table = latents.lazy() if isinstance(latents, pl.DataFrame) else pl.scan_parquet(latents)
    scan = table.with_columns(
        pl.col("doc_id", "patient_id", "lemma", "kind", "sense").cast(pl.String)
    )
    present = [name for name in TABLE_COLUMNS if name in scan.collect_schema().names()]
    lemmas = scan.select("lemma", "kind").unique().sort("lemma").collect()
    for lemma, kind in lemmas.iter_rows():
        if kinds is not None and kind not in kinds:
            continue
        rows = (
            scan.filter(pl.col("lemma") == lemma)
            .select(*present, "latent_ids", values)
            .collect()
            .sort("patient_id", "doc_id", "char_start")
        )
        codes = code_matrix(rows["latent_ids"], rows[values])
        yield LemmaLatents(lemma, kind, rows.select(present), codes)


def source_of(path: str | Path) -> dict[str, object]:
    """model, layer and sae of an occurrence_latents table (empty table: all None)."""
    columns = ["model", "layer", "sae"]
    head = pl.scan_parquet(path).select(pl.col("model", "sae").cast(pl.String), "layer").head(1)
    rows = head.select(columns).collect().rows(named=True)
    return rows[0] if rows else dict.fromkeys(columns)


def sense_sample(latents: LemmaLatents, min_occurrences: int) -> SenseSample:
    """Keep the senses of a polysemous term with enough occurrences in two patients or more."""
    if latents.kind != POLYSEMOUS:
        raise ValueError(f"'{latents.lemma}' is not a polysemous term")
    counts = (
        latents.table.filter(pl.col("sense").is_not_null())
        .group_by("sense")
        .agg(pl.len().alias("n"), pl.col("patient_id").n_unique().alias("patients"))
        .sort("sense")
    )
    enough = counts.filter((pl.col("n") >= min_occurrences) & (pl.col("patients") >= 2))
    senses = tuple(enough["sense"])
    kept = latents.table["sense"].is_in(senses).fill_null(False).to_numpy()
    sample = latents.take(kept)
    label = np.searchsorted(
        np.array(senses, dtype=str), sample.table["sense"].to_numpy().astype(str)
    )
    reason = None
    if len(senses) < 2:
        found = ", ".join(f"{sense}: {n}" for sense, n, _ in counts.iter_rows()) or "none"
        reason = (
            f"fewer than two senses have {min_occurrences} occurrences in two patients ({found})"
        )
    return SenseSample(sample, senses, label.astype(np.int8), reason)


def cap_by_patient(
    latents: LemmaLatents, limit: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Mask [n] of at most ``limit`` occurrences: whole patients, drawn at random."""
    return whole_patients(latents.patient, limit, rng)


def whole_patients(
    patient: NDArray[np.integer], limit: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Mask [n] of at most ``limit`` rows with ``patient`` codes [n]: all of a patient's or none."""
    if len(patient) <= limit:
        return np.ones(len(patient), dtype=bool)
    sizes = np.bincount(patient)
    order = rng.permutation(len(sizes))
    chosen = order[np.cumsum(sizes[order]) <= limit]
    return np.isin(patient, chosen)
