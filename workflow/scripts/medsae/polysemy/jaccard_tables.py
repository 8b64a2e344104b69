"""The tables of overlap: per term and k, the published one, and pairs for the R models."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations
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
    Cuts,
    chance_delta,
    control_rows,
    floor_rows,
    floor_sample,
    half_cuts,
    match_controls,
    patients_by_sense,
)
from medsae.polysemy.jaccard_pairs import MODELLED_K, pair_rows
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
from medsae.statistics import (
    MIN_CLUSTERS,
    NOT_EXCHANGEABLE,
    benjamini_hochberg,
    percentile_interval,
    stream,
)

TOO_FEW_TESTED = "not testable: a sense has fewer than two patients among the occurrences tested"
"""Why there is no p where Δ is not defined for the occurrences whose senses are exchanged."""

MAX_OCCURRENCES = 20_000
"""Occurrences of a term whose pairs are all compared; more are cut by whole patients."""

JACCARD_TYPES = dict.fromkeys(
    (
        "lemma", "kind", "sense1", "sense2", "reason", "pair_type", "matched_controls",
        "sense_a", "sense_b", "doc_a", "doc_b", "patient_a", "patient_b",
    ),
    pl.String,
) | dict.fromkeys(
    (
        "k", "n_permutations", "n_tested", "n_occurrences1", "n_occurrences2", "n_patients",
        "n_pairs", "n_samples_sense1", "n_samples_sense2", "n_samples_sense1_sampled",
        "n_samples_sense2_sampled", "n_cuts",
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
    depths = sorted({k for k in (MODELLED_K, *jaccard_k) if k < n_all} | {n_all})
    terms: list[dict[str, Any]] = []
    published: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    floor: list[LemmaLatents] = []
    designs: dict[str, tuple[int, ...]] = {}
    frequency: dict[str, int] = {}
    n_lemmas = pl.scan_parquet(latents).select(pl.col("lemma").n_unique()).collect().item()
    # ambiguous terms first: controls are cut as their senses are
    lemmas = chain.from_iterable(
        read_lemmas(latents, kinds=(kind,)) for kind in (POLYSEMOUS, CONTROL)
    )
    cuts: Cuts = {}
    matched: dict[str, tuple[str, ...]] | None = None
    for lemma in progress(lemmas, "overlap of latents", n_lemmas):
        lemma = lemma.take(cap_by_patient(lemma, MAX_OCCURRENCES, stream(seed, "cap", lemma.lemma)))
        if lemma.kind == POLYSEMOUS:
            sample = sense_sample(lemma, statistics["min_occurrences"])
            terms += _term_rows(sample, depths, statistics)
            if sample.reason is None:
                published += published_rows(sample)
                pairs += pair_rows(sample, stream(seed, "pairs", lemma.lemma))
                floor.append(floor_sample(sample.latents, seed))
                designs[lemma.lemma] = patients_by_sense(sample)
                frequency[lemma.lemma] = len(sample.latents)
            continue
        if matched is None:
            matched = match_controls(frequency, _usable_controls(latents, statistics))
        own = {term: designs[term] for term, names in matched.items() if lemma.lemma in names}
        terms += control_rows(lemma, depths, own, cuts, statistics)
        if len(np.unique(lemma.patient)) >= MIN_PATIENTS:
            rng = stream(seed, "pairs", lemma.lemma)
            halves = half_cuts(int(lemma.patient[-1]) + 1, rng)[0][lemma.patient]
            pseudo = SenseSample(lemma, ("a", "b"), halves, None)
            pairs += pair_rows(pseudo, stream(seed, "pairs", lemma.lemma, "draw"))
            floor.append(floor_sample(lemma, seed))
    terms += floor_rows(floor, depths, statistics)
    source = {name: pl.lit(value) for name, value in source_of(latents).items()}
    return (
        _finish_terms(_frame(terms, JACCARD_AT_K, source), matched or {}, cuts),
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
    fewest = min(len(np.unique(patient[label == sense])) for sense in range(n_senses))
    tested = cap_by_patient(lemma, MAX_TESTED, stream(seed, "tested", lemma.lemma))
    fewest_tested = min(
        len(np.unique(patient[tested & (label == sense)])) for sense in range(n_senses)
    )
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
        row = base | {
            "k": k,
            **_with_intervals(observed_overlaps(grouped, n_senses), resampled),
            "pvalue": pvalue,
            "n_permutations": statistics["n_permutations"],
            "n_tested": int(tested.sum()),
        }
        if np.isnan(pvalue):
            reason = TOO_FEW_TESTED if fewest_tested < 2 else NOT_EXCHANGEABLE
            row |= {"reason": reason, "n_permutations": None}
        if fewest < MIN_CLUSTERS:
            row |= {name: None for name in row if name.endswith(("_low", "_high"))}
            row["reason"] = row["reason"] or f"no interval: a sense has {fewest} patients only"
        yield row


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


def _with_intervals(observed: Overlaps, resampled: Overlaps) -> dict[str, float]:
    row = {}
    for name in ("within", "cross", "delta", "polysemy_index"):
        low, high = percentile_interval(getattr(resampled, name))
        row[name] = float(getattr(observed, name)[0])
        row[f"{name}_low"], row[f"{name}_high"] = float(low), float(high)
    return row


def _usable_controls(latents: str | Path, statistics: dict[str, int]) -> dict[str, int]:
    """Occurrences of each control that is frequent enough to be cut."""
    counts = (
        pl.scan_parquet(latents)
        .filter(pl.col("kind").cast(pl.String) == CONTROL)
        .group_by(pl.col("lemma").cast(pl.String))
        .agg(pl.len().alias("n"), pl.col("patient_id").n_unique().alias("patients"))
        .filter(pl.col("n") >= statistics["min_occurrences"], pl.col("patients") >= MIN_PATIENTS)
    )
    return dict(counts.select("lemma", "n").collect().iter_rows())


def _finish_terms(
    terms: pl.DataFrame, matched: Mapping[str, tuple[str, ...]], cuts: Cuts
) -> pl.DataFrame:
    """q over the terms of each k, and what the controls matched to each term look like."""
    finished = []
    for (k,), part in terms.group_by("k", maintain_order=True):
        qvalues = benjamini_hochberg(part["pvalue"].fill_null(float("nan")).to_numpy())
        within = dict(part.filter(pl.col("kind") == CONTROL).select("lemma", "within").iter_rows())
        rows = []
        for row, q in zip(part.iter_rows(named=True), qvalues, strict=True):
            row["qvalue"] = q
            if row["kind"] == POLYSEMOUS and (names := matched.get(row["lemma"])):
                row["matched_controls"] = "|".join(names)
                overlap = [within[name] for name in names if within[name] is not None]
                row["control_within"] = float(np.mean(overlap)) if overlap else None
                if deltas := cuts.get((row["lemma"], k)):
                    row |= chance_delta(np.concatenate(deltas))
            rows.append(row)
        finished.append(pl.DataFrame(rows, schema=part.schema))
    if not finished:
        return terms.select(JACCARD_AT_K)
    return tidy(pl.concat(finished).sort("k", "kind", "lemma")).select(JACCARD_AT_K)


def _frame(rows: list[dict], columns: Sequence[str], source: dict[str, pl.Expr]) -> pl.DataFrame:
    own = [column for column in columns if column not in source]
    table = pl.DataFrame(rows, schema={name: JACCARD_TYPES.get(name, pl.Float64) for name in own})
    return tidy(table.with_columns(**source).select(columns))
