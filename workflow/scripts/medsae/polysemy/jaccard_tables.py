"""The tables of overlap: per term and k, the published one, and pairs for the R models."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from medsae.io import progress
from medsae.polysemy.columns import (
    CONTROL,
    JACCARD_AT_K,
    JACCARD_CROSS_SENSE,
    JACCARD_PAIRS,
    POLYSEMOUS,
    tidy,
)
from medsae.polysemy.jaccard import (
    MAX_TESTED,
    Overlaps,
    bootstrap_overlaps,
    observed_overlaps,
    pair_similarity,
    permutation_pvalue,
)
from medsae.polysemy.jaccard_controls import (
    MIN_PATIENTS,
    control_rows,
    floor_rows,
    floor_sample,
    half_split,
)
from medsae.polysemy.overlap import (
    TopSets,
    grouped_overlap,
    overlap_block,
    row_blocks,
    top_sets,
)
from medsae.polysemy.sparse import (
    LemmaLatents,
    SenseSample,
    cap_by_patient,
    codes_of,
    read_lemmas,
    sense_sample,
    source_of,
)
from medsae.statistics import benjamini_hochberg, percentile_interval, stream

MAX_OCCURRENCES = 20_000
"""Occurrences of a term whose pairs are all compared; more are cut by whole patients."""

MAX_PAIRS = 200
"""Pairs per term and pair type in the table for the R models."""

N_MATCHED = 5
"""Controls nearest in frequency that a term is compared with."""


JACCARD_TYPES = dict.fromkeys(
    (
        "lemma", "kind", "sense1", "sense2", "reason", "pair_type", "matched_controls",
        "doc_a", "doc_b", "patient_a", "patient_b",
    ),
    pl.String,
) | dict.fromkeys(
    (
        "k", "n_permutations", "n_tested", "n_occurrences1", "n_occurrences2", "n_patients",
        "n_pairs", "n_samples_sense1", "n_samples_sense2", "n_samples_sense1_sampled",
        "n_samples_sense2_sampled",
    ),
    pl.Int64,
)  # fmt: skip
"""Types of the columns that are not numbers with a fraction."""


def measure_jaccard(
    latents: str | Path, jaccard_k: Sequence[int], statistics: dict[str, int]
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Tables jaccard_at_k, jaccard_cross_sense and jaccard_pairs of one SAE.

    ``latents``: occurrence_latents.parquet; ``statistics``: min_occurrences, n_permutations,
    n_bootstrap, seed. The row of all K latents carries k = the largest number of latents any
    occurrence has.
    """
    seed = statistics["seed"]
    n_all = int(
        pl.scan_parquet(latents).select(pl.col("latent_ids").list.len().max()).collect().item() or 1
    )
    depths = sorted({k for k in jaccard_k if k < n_all} | {n_all})
    terms: list[dict[str, Any]] = []
    published: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    floor: list[LemmaLatents] = []
    n_lemmas = pl.scan_parquet(latents).select(pl.col("lemma").n_unique()).collect().item()
    for lemma in progress(read_lemmas(latents), "overlap of latents", n_lemmas):
        lemma = lemma.take(cap_by_patient(lemma, MAX_OCCURRENCES, stream(seed, "cap", lemma.lemma)))
        if lemma.kind == POLYSEMOUS:
            sample = sense_sample(lemma, statistics["min_occurrences"])
            terms += _term_rows(sample, depths, statistics)
            if sample.reason is None:
                published += published_rows(sample)
                pairs += _pair_rows(sample, stream(seed, "pairs", lemma.lemma))
                floor.append(floor_sample(sample.latents, seed))
        else:
            terms += control_rows(lemma, depths, statistics)
            if len(np.unique(lemma.patient)) >= MIN_PATIENTS:
                split = half_split(lemma.patient, stream(seed, "pairs", lemma.lemma))
                pseudo = SenseSample(lemma, ("a", "b"), split, None)
                pairs += _pair_rows(pseudo, stream(seed, "pairs", lemma.lemma, "draw"))
                floor.append(floor_sample(lemma, seed))
    terms += floor_rows(floor, depths, statistics)
    source = {name: pl.lit(value) for name, value in source_of(latents).items()}
    return (
        _finish_terms(_frame(terms, JACCARD_AT_K, source)),
        _frame(published, JACCARD_CROSS_SENSE, source),
        _frame(pairs, JACCARD_PAIRS, source),
    )


def _term_rows(sample: SenseSample, depths: list[int], statistics: dict) -> Iterator[dict]:
    lemma, label = sample.latents, sample.label
    counts = np.bincount(label, minlength=2).tolist()
    names = (*sample.senses, None, None)
    base = {
        "lemma": lemma.lemma,
        "kind": POLYSEMOUS,
        "sense1": names[0],
        "sense2": "|".join(sample.senses[1:]) or None,
        "n_occurrences1": counts[0],
        "n_occurrences2": sum(counts[1:]),
        "n_patients": lemma.table["patient_id"].n_unique(),
        "reason": sample.reason,
    }
    if sample.reason is not None:
        yield from (base | {"k": k} for k in depths)
        return
    n_senses, patient, seed = len(sample.senses), lemma.patient, statistics["seed"]
    tested = cap_by_patient(lemma, MAX_TESTED, stream(seed, "tested", lemma.lemma))
    tested_patient = codes_of(lemma.table["patient_id"].filter(pl.Series(tested)))
    for k in depths:
        grouped = grouped_overlap(lemma.codes, patient, label, k)
        resampled = bootstrap_overlaps(
            grouped, n_senses, statistics["n_bootstrap"], stream(seed, "jaccard ci", lemma.lemma)
        )
        pvalue = permutation_pvalue(
            pair_similarity(lemma.codes[np.flatnonzero(tested)], tested_patient, k),
            tested_patient,
            label[tested],
            statistics["n_permutations"],
            stream(seed, "jaccard p", lemma.lemma),
        )
        yield base | {
            "k": k,
            **_with_intervals(observed_overlaps(grouped, n_senses), resampled),
            "pvalue": pvalue,
            "n_permutations": statistics["n_permutations"],
            "n_tested": int(tested.sum()),
        }


def published_rows(sample: SenseSample) -> Iterator[dict]:
    """Overlap of two senses over all their pairs; exact moments and median from counts."""
    lemma, label = sample.latents, sample.label
    sets = top_sets(lemma.codes, None)
    largest = int(sets.sizes.max(initial=0))
    for s, t in combinations(range(len(sample.senses)), 2):
        rows, columns = (_subset(sets, label == each) for each in (s, t))
        joined = TopSets(
            np.concatenate([rows.common, columns.common]),
            csr_array(vstack([rows.rare, columns.rare])),
            np.concatenate([rows.sizes, columns.sizes]),
        )
        n, m = len(rows.sizes), len(columns.sizes)
        counts = np.zeros((largest + 1) * (2 * largest + 1), dtype=np.int64)
        for _, block in row_blocks(np.arange(n), n):
            shared, union = overlap_block(joined, block, slice(n, n + m))
            cell = (shared * (2 * largest + 1) + union).astype(np.int64)
            counts += np.bincount(cell.ravel(), minlength=len(counts))
        mean, median, std = _moments(counts, 2 * largest + 1)
        yield {
            "lemma": lemma.lemma,
            "sense1": sample.senses[s],
            "sense2": sample.senses[t],
            "mean_jaccard": mean,
            "median_jaccard": median,
            "std_jaccard": std,
            "n_pairs": n * m,
            "n_samples_sense1": n,
            "n_samples_sense2": m,
            "n_samples_sense1_sampled": n,
            "n_samples_sense2_sampled": m,
        }


def _subset(sets: TopSets, keep: NDArray[np.bool_]) -> TopSets:
    index = np.flatnonzero(keep)
    return TopSets(sets.common[index], sets.rare[index], sets.sizes[index])


def _moments(counts: NDArray[np.int64], width: int) -> tuple[float, float, float]:
    """Mean, median and standard deviation of shared/union from counts of shared·width + union."""
    cells = np.flatnonzero(counts)
    shared, union = np.divmod(cells, width)
    values = shared / np.maximum(union, 1)
    order = np.argsort(values, kind="stable")
    values, n = values[order], counts[cells][order]
    total = n.sum()
    mean = (values * n).sum() / total
    std = np.sqrt((n * (values - mean) ** 2).sum() / total)
    upto = np.cumsum(n)
    middle = values[np.searchsorted(upto, [(total - 1) // 2, total // 2], side="right")]
    return float(mean), float(middle.mean()), float(std)


def _pair_rows(sample: SenseSample, rng: np.random.Generator) -> list[dict]:
    """Up to MAX_PAIRS random pairs of each type, from different patients, as rows."""
    lemma, label, patient = sample.latents, sample.label, sample.latents.patient
    draws = rng.integers(0, len(lemma), (40 * MAX_PAIRS, 2))
    first, second = draws.min(1), draws.max(1)
    drawn = np.unique(first * len(lemma) + second)
    drawn = rng.permutation(drawn)
    first, second = np.divmod(drawn, len(lemma))
    apart = patient[first] != patient[second]
    same = label[first] == label[second]
    chosen = np.concatenate([np.flatnonzero(apart & kind)[:MAX_PAIRS] for kind in (same, ~same)])
    a, b = first[chosen], second[chosen]
    at_10, at_all = (_paired_jaccard(lemma.codes, a, b, k) for k in (10, None))
    documents, patients = lemma.table["doc_id"], lemma.table["patient_id"]
    columns = {
        "pair_type": np.where(same[chosen], "within", "cross").tolist(),
        "jaccard_at_10": at_10.tolist(),
        "jaccard": at_all.tolist(),
        "doc_a": documents[a].to_list(),
        "doc_b": documents[b].to_list(),
        "patient_a": patients[a].to_list(),
        "patient_b": patients[b].to_list(),
    }
    base = {"lemma": lemma.lemma, "kind": lemma.kind}
    return [
        base | dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
    ]


def _paired_jaccard(codes: csr_array, a: NDArray, b: NDArray, k: int | None) -> NDArray:
    sets = top_sets(codes, k)
    shared = (sets.common[a] * sets.common[b]).sum(1)
    shared = shared + np.asarray(sets.rare[a].multiply(sets.rare[b]).sum(axis=1)).ravel()
    return shared / np.maximum(sets.sizes[a] + sets.sizes[b] - shared, 1)


def _with_intervals(observed: Overlaps, resampled: Overlaps) -> dict[str, float]:
    row = {}
    for name in ("within", "cross", "delta", "polysemy_index"):
        low, high = percentile_interval(getattr(resampled, name))
        row[name] = float(getattr(observed, name)[0])
        row[f"{name}_low"], row[f"{name}_high"] = float(low), float(high)
    return row


def _finish_terms(terms: pl.DataFrame) -> pl.DataFrame:
    """q over the terms of each k, and the controls nearest in frequency beside each term."""
    terms = terms.with_columns(
        pl.lit(None, pl.Float64).alias("qvalue"),
        pl.lit(None, pl.String).alias("matched_controls"),
        pl.lit(None, pl.Float64).alias("control_within"),
    )
    finished = []
    for _, part in terms.group_by("k", maintain_order=True):
        qvalues = benjamini_hochberg(part["pvalue"].fill_null(float("nan")).to_numpy())
        part = part.with_columns(pl.Series("qvalue", qvalues))
        controls = part.filter((pl.col("kind") == CONTROL) & pl.col("within").is_not_null())
        finished.append(_match_controls(part, controls))
    return tidy(pl.concat(finished).sort("k", "kind", "lemma")).select(JACCARD_AT_K)


def _match_controls(part: pl.DataFrame, controls: pl.DataFrame) -> pl.DataFrame:
    if controls.is_empty():
        return part
    frequency = np.log(controls["n_occurrences1"].to_numpy())
    names: list[str | None] = []
    means: list[float | None] = []
    for row in part.iter_rows(named=True):
        if row["kind"] != POLYSEMOUS or row["reason"] is not None:
            names.append(None)
            means.append(None)
            continue
        own = np.log(row["n_occurrences1"] + row["n_occurrences2"])
        near = controls[np.sort(np.argsort(np.abs(frequency - own), kind="stable")[:N_MATCHED])]
        names.append("|".join(near["lemma"]))
        means.append(float(near["within"].to_numpy().mean()))
    return part.with_columns(
        pl.Series("matched_controls", names, pl.String),
        pl.Series("control_within", means, pl.Float64),
    )


def _frame(rows: list[dict], columns: Sequence[str], source: dict[str, pl.Expr]) -> pl.DataFrame:
    own = [column for column in columns if column not in source]
    table = pl.DataFrame(rows, schema={name: JACCARD_TYPES.get(name, pl.Float64) for name in own})
    return tidy(table.with_columns(**source).select(columns))
