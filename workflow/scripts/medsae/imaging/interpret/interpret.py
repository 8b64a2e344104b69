"""Naming the features of one SAE, and testing the names on slices they were not made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import binomtest

from medsae.imaging import columns as col
from medsae.imaging.artifacts import (
    Embeddings,
    feature_batches,
    feature_columns,
    rows_of_split,
)
from medsae.imaging.columns import SPLITS
from medsae.imaging.interpret.explain import METADATA, Evidence, Explainer
from medsae.imaging.interpret.judge import Judge
from medsae.imaging.interpret.prompts import JUDGE_VERSION, Description
from medsae.imaging.interpret.select import POOL, SHOWN, hard_distractors, max_min_diverse
from medsae.imaging.top_slices import TopSlices, top_slices
from medsae.io import progress
from medsae.statistics import codes_of, stream, wilson_interval

N_DISTRACTORS = 4
SUCCESS_RANK = 2
CHANCE = SUCCESS_RANK / (N_DISTRACTORS + 1)
MIN_SHOWN = 2
DUPLICATE_COSINE = 0.7
"""Features whose activations are this alike over the training slices are near duplicates."""

DUPLICATE_WORDS = 0.8

NAMED_ON = "train"


@dataclass(frozen=True)
class Interpretation:
    """The tables of ``interpretation/`` and the metrics."""

    descriptions: pl.DataFrame
    samples: pl.DataFrame
    statistics: pl.DataFrame
    metrics: dict[str, Any]


def interpret(
    selected: pl.DataFrame,
    features: str | Path,
    embeddings: Embeddings,
    slices: pl.DataFrame,
    n_latents: int,
    explainer: Explainer,
    judge: Judge,
    judged_on: Sequence[str],
    seed: int,
) -> Interpretation:
    """Name each selected feature on training slices, judge the name on those of ``judged_on``.

    A feature whose name, or whose judgement, cannot be read counts as a failure; one that
    too few slices or descriptions leave without a test is listed with the reason.
    """
    ids = selected["feature_idx"].to_numpy()
    naming = _top_of(features, slices, (NAMED_ON,), n_latents, POOL)
    judging = _top_of(features, slices, judged_on, n_latents, SHOWN)
    evidence = [_evidence(int(f), naming, embeddings) for f in ids]
    described: dict[int, Description | None] = {}
    for each in progress(evidence, "features named"):
        described[each.feature] = explainer.describe(each) if len(each.pool) else None
    columns = feature_columns(features, ids, slices.height) if len(ids) else None
    rows: list[dict[str, Any]] = []
    named = [f for f, words in described.items() if words is not None]
    similarity, duplicate = _likeness(named, ids, columns, described, evidence, embeddings, slices)
    for each in progress(evidence, "features judged"):
        judged = judging.row[each.feature]
        judged = judged[judged >= 0]
        words = described[each.feature]
        row: dict[str, Any] = {
            "feature_idx": each.feature,
            "concept": words.concept if words else None,
            "description": words.description if words else None,
            "explainer": explainer.identity,
            "prompt_version": explainer.version,
            "parsed": words is not None,
            "n_named_on": len(each.pool),
            "n_judged_on": len(judged),
            "judge": judge.identity,
        }
        row |= _verdict(each, judged, described, named, similarity, duplicate, judge, seed)
        rows.append(row)
    table = pl.DataFrame(rows, schema=DESCRIPTIONS)
    return Interpretation(
        table,
        _samples(evidence, naming, judging, slices),
        _activation_statistics(ids, columns, slices),
        _metrics(table, explainer, judge),
    )


DESCRIPTIONS = {
    "feature_idx": pl.Int64,
    "concept": pl.String,
    "description": pl.String,
    "explainer": pl.String,
    "prompt_version": pl.String,
    "parsed": pl.Boolean,
    "n_named_on": pl.Int64,
    "n_judged_on": pl.Int64,
    "judge": pl.String,
    "distractors": pl.String,
    "rank": pl.Int64,
    "success": pl.Boolean,
    "reason": pl.String,
}


def _top_of(
    features: str | Path, slices: pl.DataFrame, splits: Sequence[str], n_latents: int, n_top: int
) -> TopSlices:
    pool = np.zeros(slices.height, dtype=bool)
    pool[rows_of_split(slices, *splits)] = True
    scan = codes_of(slices[col.SCAN])
    return top_slices(feature_batches(features), scan, pool, n_latents, n_top)


def _evidence(feature: int, top: TopSlices, embeddings: Embeddings) -> Evidence:
    pool = top.row[feature][top.row[feature] >= 0]
    chosen = max_min_diverse(embeddings.rows(pool), SHOWN) if len(pool) else []
    return Evidence(feature, pool, pool[chosen])


def _likeness(
    named: list[int],
    ids: NDArray[np.integer],
    columns: Any,
    described: dict[int, Description | None],
    evidence: list[Evidence],
    embeddings: Embeddings,
    slices: pl.DataFrame,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Likeness of the slices of named features [m, m], and which are near duplicates."""
    if not named:
        return np.zeros((0, 0)), np.zeros((0, 0), dtype=bool)
    place = {int(f): i for i, f in enumerate(ids)}
    pools = {each.feature: each.pool for each in evidence}
    means = np.stack([embeddings.rows(pools[f]).mean(0) for f in named])
    means = means - means.mean(0)
    codes = columns[rows_of_split(slices, NAMED_ON)][:, [place[f] for f in named]]
    activations = _cosine(codes.T.toarray().astype(np.float64))
    words = [set((described[f] or Description("", "")).description.lower().split()) for f in named]
    shared = np.array([[len(a & b) / max(len(a | b), 1) for b in words] for a in words])
    return _cosine(means), (activations >= DUPLICATE_COSINE) | (shared >= DUPLICATE_WORDS)


def _cosine(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.round(unit @ unit.T, 9)


def _verdict(
    each: Evidence,
    rows: NDArray[np.int64],
    described: dict[int, Description | None],
    named: list[int],
    similarity: NDArray[np.float64],
    duplicate: NDArray[np.bool_],
    judge: Judge,
    seed: int,
) -> dict[str, Any]:
    if len(rows) < MIN_SHOWN or len(each.pool) < MIN_SHOWN:
        return {"reason": f"active in {len(each.pool)} training and {len(rows)} judged scans"}
    if described[each.feature] is None:
        return {"success": False, "reason": "no description could be read"}
    wrong = hard_distractors(each.feature, named, similarity, duplicate, N_DISTRACTORS)
    if len(wrong) < N_DISTRACTORS:
        return {"reason": f"only {len(wrong)} other descriptions are not near duplicates"}
    order = stream(seed, "candidates", each.feature).permutation(N_DISTRACTORS + 1)
    pool = [each.feature, *wrong]
    candidates = [words for i in order if (words := described[pool[i]]) is not None]
    ranking = judge.rank(rows, candidates)
    verdict: dict[str, Any] = {"distractors": ";".join(map(str, wrong))}
    if ranking is None:
        return verdict | {"success": False, "reason": "no ranking could be read"}
    rank = 1 + [int(order[i]) for i in ranking].index(0)
    return verdict | {"rank": rank, "success": rank <= SUCCESS_RANK}


def _samples(
    evidence: list[Evidence], naming: TopSlices, judging: TopSlices, slices: pl.DataFrame
) -> pl.DataFrame:
    """``feature_sample_metadata.csv``: the slices of each feature and what is known of them."""
    parts = []
    for each in evidence:
        judged = judging.row[each.feature]
        shown = set(each.shown.tolist())
        roles = [("shown" if row in shown else "pool", row) for row in each.pool.tolist()]
        roles += [("judged", row) for row in judged[judged >= 0].tolist()]
        values = dict(
            zip(each.pool.tolist(), naming.value[each.feature].tolist(), strict=False)
        ) | dict(zip(judged.tolist(), judging.value[each.feature].tolist(), strict=True))
        parts += [(each.feature, role, row, values[row]) for role, row in roles]
    schema = {"feature_idx": pl.Int64, "role": pl.String, "row": pl.Int64, "activation": pl.Float64}
    table = pl.DataFrame(parts, schema=schema, orient="row")
    known = slices.select(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("row"),
        col.SLICE_KEY,
        *(name for name in METADATA if name in slices.columns),
    )
    return (
        table.join(known, on="row", how="left", maintain_order="left")
        .drop("row")
        .with_columns(pl.col(col.ORGANS).list.join(";"))
    )


def _activation_statistics(
    ids: NDArray[np.integer], columns: Any, slices: pl.DataFrame
) -> pl.DataFrame:
    """``feature_activation_stats.csv``: how often and how strongly each feature fires."""
    rows = []
    for split in SPLITS:
        here = rows_of_split(slices, split)
        if columns is None or not len(here):
            continue
        block = columns[here].tocsc()
        for place, feature in enumerate(ids.tolist()):
            values = block.data[block.indptr[place] : block.indptr[place + 1]]
            fires = len(values) > 0
            rows.append(
                {
                    "feature_idx": feature,
                    "split": split,
                    "n_slices": len(here),
                    "n_active": len(values),
                    "frequency": len(values) / len(here),
                    "mean_active": float(values.mean()) if fires else None,
                    "median_active": float(np.median(values)) if fires else None,
                    "max": float(values.max()) if fires else None,
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None)


def _metrics(table: pl.DataFrame, explainer: Explainer, judge: Judge) -> dict[str, Any]:
    tested = table.filter(pl.col("success").is_not_null())
    hits, n = int(tested["success"].sum()), tested.height
    ranks = tested["rank"].drop_nulls()
    low, high = wilson_interval(hits, n)
    return {
        "explainer": explainer.identity,
        "explainer_prompt_version": explainer.version,
        "judge": judge.identity,
        "judge_prompt_version": JUDGE_VERSION,
        "n_selected": table.height,
        "n_tested": n,
        "n_not_tested": table.height - n,
        "n_descriptions_not_read": int((~tested["parsed"]).sum()),
        "n_rankings_not_read": int((tested["reason"] == "no ranking could be read").sum()),
        "n_success": hits,
        "success_rate": hits / n if n else None,
        "success_rate_low": low if n else None,
        "success_rate_high": high if n else None,
        "chance": CHANCE,
        "pvalue_above_chance": (
            float(binomtest(hits, n, CHANCE, alternative="greater").pvalue) if n else None
        ),
        # a failure to answer has no rank, and its reciprocal is 0
        "first_rank_rate": float((ranks == 1).sum() / n) if n else None,
        "mean_reciprocal_rank": float((1 / ranks).sum() / n) if n else None,
    }
