"""How many latents a sense spreads over: Shannon entropy in bits, comparable across senses.

Published: H = −Σ p log₂ p of the pooled counts of the latents of all occurrences, over
log₂ of the number of distinct latents. It grows with the number of occurrences.

Rarefied: mean H over random draws of ``rarefied_n`` occurrences without replacement, the
same number for every sense of every term, with p the share of the activation mass; over
log₂ of the number of latents that are alive at all. Its interval resamples patients, each
resample the mean of a few draws. A resample repeats occurrences, which lowers its entropy
for no real reason, so the resampled values are shifted to the estimate as their centre, and
what the few draws add to their variance is taken off: only the spread between patients is
used.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array

from medsae.io import progress
from medsae.polysemy.columns import ENTROPY, POLYSEMOUS, tidy
from medsae.polysemy.sparse import LemmaLatents, codes_of, read_lemmas, source_of
from medsae.statistics import cluster_weights, percentile_interval, stream

N_DRAWS = 200
"""Draws of occurrences averaged for the estimate."""

DRAWS_PER_RESAMPLE = 8

BLOCK = 1000
"""Draws whose pooled activations are held at once."""


def measure_entropy(
    latents: str | Path, calibration: str | Path, statistics: dict[str, int]
) -> pl.DataFrame:
    """Table entropy_per_sense: one row per sense of a term, and per control term."""
    alive = int(
        pl.scan_parquet(calibration).select((pl.col("firing_count") > 0).sum()).collect().item()
    )
    groups = _group_sizes(latents)
    estimable = groups.filter(pl.col("n") >= statistics["min_occurrences"])["n"]
    rarefied_n = int(estimable.min()) if len(estimable) else None  # type: ignore[arg-type]
    rows = []
    for lemma in progress(read_lemmas(latents), "entropy", groups["lemma"].n_unique()):
        senses = lemma.table["sense"].drop_nulls().unique().sort().to_list()
        for sense in senses if lemma.kind == POLYSEMOUS else [None]:
            kept = lemma
            if sense is not None:
                kept = lemma.take((lemma.table["sense"] == sense).fill_null(False).to_numpy())
            rows.append(_entropy_row(kept, sense, rarefied_n, alive, statistics))
    source = {name: pl.lit(value) for name, value in source_of(latents).items()}
    own = [name for name in ENTROPY if name not in source]
    texts = dict.fromkeys(("lemma", "sense", "kind", "reason"), pl.String)
    whole = ("n_occurrences", "n_unique_latents", "n_patients", "rarefied_n", "n_alive_latents")
    types = texts | dict.fromkeys(whole, pl.Int64)
    table = pl.DataFrame(rows, schema={name: types.get(name, pl.Float64) for name in own})
    return tidy(table.with_columns(**source).select(ENTROPY))


def pooled_entropy(counts: NDArray[np.floating]) -> float:
    """H in bits of non-negative ``counts``; 0 if they are all zero."""
    p = counts[counts > 0] / counts.sum() if counts.any() else np.ones(1)
    return float(-(p * np.log2(p)).sum()) + 0.0


def drawn_entropies(codes: csr_array, draws: NDArray[np.integer]) -> NDArray[np.float64]:
    """H of the activation mass of each draw [B, m] of rows of ``codes``; repeats allowed."""
    n_draws, size = draws.shape
    result = np.empty(n_draws)
    compact = codes[:, np.unique(codes.indices)].astype(np.float64)
    for start in range(0, n_draws, BLOCK):
        block = draws[start : start + BLOCK]
        indptr = np.arange(0, block.size + 1, size)
        chosen = csr_array(
            (np.ones(block.size), block.ravel(), indptr), shape=(len(block), codes.shape[0])
        )
        mass = (chosen @ compact).tocsr()
        owner = np.repeat(np.arange(len(block)), np.diff(mass.indptr))
        logs = np.log2(mass.data, out=np.zeros_like(mass.data), where=mass.data > 0)
        total, weighted = (
            np.bincount(owner, values, minlength=len(block))
            for values in (mass.data, mass.data * logs)
        )
        # H = log₂ M − Σ m log₂ m / M
        with np.errstate(invalid="ignore", divide="ignore"):
            h = np.log2(total) - weighted / total
        result[start : start + BLOCK] = np.where(total > 0, h, 0.0)
    return result


def random_draws(n: int, size: int, n_draws: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draws [n_draws, size] of 0 … n − 1 without replacement, each sorted."""
    draws = np.stack([rng.choice(n, size, replace=False) for _ in range(n_draws)])
    return np.sort(draws, axis=1)


def resampled_entropies(
    codes: csr_array,
    patient: NDArray[np.integer],
    size: int,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Rarefied H [B] of resamples of the patients, centred at 0, draw noise taken off."""
    weights = cluster_weights(int(patient.max()) + 1, n_bootstrap, rng).astype(np.int64)
    draws = np.empty((n_bootstrap, DRAWS_PER_RESAMPLE, size), dtype=np.intp)
    rows = np.arange(len(patient))
    for resample, weight in zip(draws, weights, strict=True):
        pool = np.repeat(rows, weight[patient])
        for draw in resample:
            # a resample of few, small patients may hold too little to draw without repeats
            draw[:] = rng.choice(pool, size, replace=len(pool) < size)
    values = drawn_entropies(codes, draws.reshape(-1, size)).reshape(n_bootstrap, -1)
    means = values.mean(1)
    spread = means.var(ddof=1)
    noise = values.var(axis=1, ddof=1).mean() / DRAWS_PER_RESAMPLE
    keep = np.sqrt(max(0.0, 1 - noise / spread)) if spread > 0 else 0.0
    return (means - means.mean()) * keep


def _group_sizes(latents: str | Path) -> pl.DataFrame:
    scan = pl.scan_parquet(latents).with_columns(pl.col("lemma", "kind", "sense").cast(pl.String))
    known = scan.filter((pl.col("kind") != POLYSEMOUS) | pl.col("sense").is_not_null())
    return known.group_by("lemma", "sense").agg(pl.len().alias("n")).collect()


def _entropy_row(
    group: LemmaLatents,
    sense: str | None,
    rarefied_n: int | None,
    alive: int,
    statistics: dict[str, int],
) -> dict[str, Any]:
    counts = np.bincount(group.codes.indices)
    unique = int((counts > 0).sum())
    entropy = pooled_entropy(counts.astype(np.float64))
    row: dict[str, Any] = {
        "lemma": group.lemma,
        "sense": sense,
        "kind": group.kind,
        "entropy": entropy,
        "normalized_entropy": entropy / np.log2(unique) if unique > 1 else 0.0,
        "n_occurrences": len(group),
        "n_unique_latents": unique,
        "n_patients": group.table["patient_id"].n_unique(),
        "n_alive_latents": alive,
        "reason": None,
    }
    if rarefied_n is None or len(group) < rarefied_n:
        needed = statistics["min_occurrences"]
        return row | {"reason": f"{len(group)} occurrences, fewer than {needed}"}
    if alive < 2:
        return row | {"reason": "fewer than two latents are alive"}
    names = (statistics["seed"], "entropy", group.lemma, sense)
    draws = random_draws(len(group), rarefied_n, N_DRAWS, stream(*names))
    estimate = float(drawn_entropies(group.codes, draws).mean())
    resampled = resampled_entropies(
        group.codes,
        codes_of(group.table["patient_id"]),
        rarefied_n,
        statistics["n_bootstrap"],
        stream(*names, "ci"),
    )
    bounds = percentile_interval(estimate + resampled)
    low, high = (float(bound) for bound in bounds)
    scale = np.log2(alive)
    return row | {
        "rarefied_n": rarefied_n,
        "rarefied_entropy": estimate,
        "rarefied_entropy_low": low,
        "rarefied_entropy_high": high,
        "rarefied_normalized": estimate / scale,
        "rarefied_normalized_low": low / scale,
        "rarefied_normalized_high": high / scale,
    }
