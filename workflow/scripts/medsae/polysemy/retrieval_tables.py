"""The tables of retrieval: settings chosen on development patients, judged on test patients.

A number of anchors that would leave many occurrences without any latent is not studied: their
cosines would all be 0, and re-ranking would change nothing for want of anything to compare.
"""

import logging

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medsae.io import progress
from medsae.polysemy.columns import (
    POLYSEMOUS,
    RETRIEVAL_BASELINES,
    RETRIEVAL_DETAIL,
    RETRIEVAL_SUMMARY,
    tidy,
)
from medsae.polysemy.retrieval import METRICS, sweep
from medsae.polysemy.retrieval_baselines import baselines, read_contexts
from medsae.polysemy.sparse import (
    LemmaLatents,
    cap_by_patient,
    codes_of,
    read_lemmas,
    sense_sample,
    source_of,
)
from medsae.polysemy.splits import split_patients
from medsae.statistics import (
    cluster_weights,
    holm,
    mcnemar_exact,
    percentile_interval,
    sign_flip_pvalue,
    stream,
)

MIN_OCCURRENCES = 30
"""Occurrences of a term that retrieval needs."""

MAX_POOL = 4_000
"""Occurrences of a term that retrieval uses; more are cut by whole patients."""

EMPTIED = 0.05
"""Share of the occurrences that a number of anchors may leave without a latent."""

P1, AP = METRICS.index("P@1"), METRICS.index("AP")
COLUMN_OF = dict(zip(METRICS, ("p_at_1", "p_at_3", "p_at_5", "p_at_10", "mrr", "map"), strict=True))

logger = logging.getLogger("medsae")


@dataclass(frozen=True)
class Pool:
    """Metrics of the queries of one term: [n, 6], and [anchors, ks, n, 6] after re-ranking."""

    word: str
    queries: pl.DataFrame
    full: NDArray[np.float64]
    reranked: NDArray[np.float64]
    others: dict[str, NDArray[np.float64]]


def measure_retrieval(
    latents: str | Path,
    notes: str | Path,
    activations: Sequence[str | Path],
    retrieval: dict[str, list[int]],
    statistics: dict[str, int],
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Tables exp_a_k_sweep_detail, exp_a_k_sweep_summary and baselines of one SAE.

    ``activations``: the shards whose rows occurrence_latents names. Where nothing can be
    estimated the summary is one row with the reason and the other tables are empty.
    """
    ks = retrieval["k_sweep"]
    shards = {Path(path).stem: Path(path) for path in activations}
    scan = pl.scan_parquet(latents).filter(pl.col("kind").cast(pl.String) == POLYSEMOUS)
    anchors = usable_anchors(scan, retrieval["n_anchor_sweep"])
    source = {name: pl.lit(value) for name, value in source_of(latents).items()}
    if not anchors:
        return _not_estimable("every n_anchor leaves occurrences without latents", source)
    places = scan.select(
        "occurrence_id", pl.col("doc_id").cast(pl.String), "char_start", "char_end"
    ).collect()
    contexts = read_contexts(notes, places)
    seed = statistics["seed"]
    development: list[Pool] = []
    test: list[Pool] = []
    for lemma in progress(read_lemmas(latents, kinds=(POLYSEMOUS,)), "retrieval"):
        sample = sense_sample(lemma, statistics["min_occurrences"])
        if sample.reason is not None or len(sample.latents) < MIN_OCCURRENCES:
            continue
        kept = cap_by_patient(sample.latents, MAX_POOL, stream(seed, "pool", lemma.lemma))
        own, label = sample.latents.take(kept), sample.label[kept]
        half = split_patients(own.patient, label, stream(seed, "retrieval halves", lemma.lemma))
        if half.all() or not half.any():
            continue
        development.append(_pool(own.take(half), label[half], sample.senses, ks, anchors))
        rng = stream(seed, "baselines", lemma.lemma)
        tested, tested_label = own.take(~half), label[~half]
        others = dict(baselines(tested, tested_label, contexts, shards, anchors, rng))
        test.append(_pool(tested, tested_label, sample.senses, ks, anchors, others))
    test = [pool for pool in test if len(pool.full)]
    if not test:
        few = f"no term has {MIN_OCCURRENCES} occurrences whose sense other patients share"
        return _not_estimable(few, source)
    if not any(len(pool.full) for pool in development):
        return _not_estimable("no development patient shares a sense with another", source)
    choice = _choose(development)
    chosen = int(np.argmax([gain for _, gain in choice]))
    detail = _detail(test, ks, anchors, choice)
    summary = _summary(test, ks, anchors, choice, chosen, statistics)
    compared = _baselines(test, anchors, choice[chosen][0], chosen, statistics)
    return (
        tidy(detail.with_columns(**source).select(RETRIEVAL_DETAIL)),
        tidy(summary.with_columns(**source).select(RETRIEVAL_SUMMARY)),
        tidy(compared.with_columns(**source).select(RETRIEVAL_BASELINES)),
    )


def usable_anchors(latents: pl.LazyFrame, n_anchor_sweep: Sequence[int]) -> list[int]:
    """Those of ``n_anchor_sweep`` that leave a latent to all but `EMPTIED` of the occurrences."""
    lengths = latents.select(pl.col("latent_ids").list.len()).collect().to_series().to_numpy()
    if not len(lengths):
        return list(n_anchor_sweep)
    usable = [n for n in n_anchor_sweep if (lengths <= n).mean() <= EMPTIED]
    for n in sorted(set(n_anchor_sweep) - set(usable)):
        logger.warning(
            "n_anchor %d is left out: %d of %d occurrences have no more latents than that",
            n, (lengths <= n).sum(), len(lengths),
        )  # fmt: skip
    return usable


def _not_estimable(
    reason: str, source: dict[str, pl.Expr]
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    logger.warning("retrieval is not estimable: %s", reason)
    types = {"chosen": pl.Boolean, "reason": pl.String}
    row = {"chosen": False, "reason": reason}
    summary = pl.DataFrame(
        [row], schema={name: types.get(name, pl.Float64) for name in RETRIEVAL_SUMMARY}
    )
    return (
        pl.DataFrame(schema=dict.fromkeys(RETRIEVAL_DETAIL, pl.Float64)),
        summary.with_columns(**source).select(RETRIEVAL_SUMMARY),
        pl.DataFrame(schema=dict.fromkeys(RETRIEVAL_BASELINES, pl.Float64)),
    )


def _pool(
    latents: LemmaLatents,
    label: NDArray[np.integer],
    senses: tuple[str, ...],
    ks: Sequence[int],
    anchors: Sequence[int],
    others: dict[str, NDArray[np.float64]] | None = None,
) -> Pool:
    """Judge one pool; queries without a relevant candidate are left out."""
    full, reranked = sweep(latents.codes, label, latents.patient, ks, anchors)
    answerable = ~np.isnan(full[:, AP])
    queries = latents.table.select("occurrence_id", "doc_id", "patient_id", "sense")
    return Pool(
        latents.lemma,
        queries.filter(pl.Series(answerable)),
        full[answerable],
        reranked[:, :, answerable],
        {name: metrics[answerable] for name, metrics in (others or {}).items()},
    )


def _choose(development: list[Pool]) -> list[tuple[int, float]]:
    """For each k the anchors (their index) with the largest mean ΔAP, and that mean."""
    gain = np.concatenate(
        [pool.reranked[..., AP] - pool.full[:, AP] for pool in development], axis=2
    ).mean(2)
    best = gain.argmax(axis=0)
    return [(int(a), float(gain[a, k])) for k, a in enumerate(best)]


def _detail(
    test: list[Pool], ks: Sequence[int], anchors: Sequence[int], choice: list[tuple[int, float]]
) -> pl.DataFrame:
    parts = []
    for index, k in enumerate(ks):
        anchor = choice[index][0]
        for pool in test:
            after = pool.reranked[anchor, index]
            columns: dict[str, Any] = {}
            for number, metric in enumerate(METRICS):
                columns[f"full_{metric}"] = pool.full[:, number]
                columns[f"rerank_{metric}"] = after[:, number]
                columns[f"delta_{metric}"] = after[:, number] - pool.full[:, number]
            parts.append(
                pool.queries.rename({"sense": "query_sense"}).with_columns(
                    pl.lit(pool.word).alias("word"),
                    pl.lit(k).alias("rerank_k"),
                    pl.lit(anchors[anchor]).alias("n_anchor"),
                    *(pl.Series(name, values) for name, values in columns.items()),
                )
            )
    return pl.concat(parts)


def _summary(
    test: list[Pool],
    ks: Sequence[int],
    anchors: Sequence[int],
    choice: list[tuple[int, float]],
    chosen: int,
    statistics: dict[str, int],
) -> pl.DataFrame:
    full = np.concatenate([pool.full for pool in test])
    patient = codes_of(pl.concat([pool.queries["patient_id"] for pool in test]))
    weights = _query_weights(patient, statistics)
    rows = []
    for index, k in enumerate(ks):
        anchor, gain = choice[index]
        after = np.concatenate([pool.reranked[anchor, index] for pool in test])
        delta = after - full
        low, high = _mean_interval(delta, weights)
        better = int((delta[:, P1] > 0).sum())
        worse = int((delta[:, P1] < 0).sum())
        clustered = sign_flip_pvalue(
            np.bincount(patient, delta[:, P1]).astype(np.float64),
            statistics["n_permutations"],
            stream(statistics["seed"], "retrieval signs", k),
            two_sided=True,
        )
        rows.append(
            {
                "k": k,
                "delta_P@1_mean": float(delta[:, P1].mean()),
                "delta_P@1_ci": float(high[P1] - low[P1]) / 2,
                "delta_MAP_mean": float(delta[:, AP].mean()),
                "p_value": mcnemar_exact(better, worse),
                "p_clustered": clustered,
                "n": len(delta),
                "delta_P@1_low": float(low[P1]),
                "delta_P@1_high": float(high[P1]),
                "delta_MAP_low": float(low[AP]),
                "delta_MAP_high": float(high[AP]),
                "n_better": better,
                "n_worse": worse,
                "n_patients": int(patient.max()) + 1,
                "n_anchor": anchors[anchor],
                "development_delta_MAP": gain,
                "chosen": index == chosen,
                "reason": None,
            }
            | {f"full_{name}": float(full[:, i].mean()) for i, name in enumerate(METRICS)}
            | {f"rerank_{name}": float(after[:, i].mean()) for i, name in enumerate(METRICS)}
        )
    table = pl.DataFrame(rows, schema_overrides={"reason": pl.String})
    return table.with_columns(pl.Series("p_adjusted", holm(table["p_clustered"].to_numpy())))


def _baselines(
    test: list[Pool],
    anchors: Sequence[int],
    anchor: int,
    chosen: int,
    statistics: dict[str, int],
) -> pl.DataFrame:
    """Every method over all terms and per term, with its paired difference from stage 1."""
    suffix = f"@{anchors[anchor]}"
    methods = [name for name in test[0].others if "@" not in name or name.endswith(suffix)]
    rows = []
    for pools in (test, *([pool] for pool in test)):
        patient = codes_of(pl.concat([pool.queries["patient_id"] for pool in pools]))
        weights = _query_weights(patient, statistics)
        full = np.concatenate([pool.full for pool in pools])
        results = {"full": full}
        results["rerank"] = np.concatenate([pool.reranked[anchor, chosen] for pool in pools])
        for name in methods:
            results[name.removesuffix(suffix)] = np.concatenate(
                [pool.others[name] for pool in pools]
            )
        for method, metrics in results.items():
            row: dict[str, Any] = {
                "word": "all" if pools is test else pools[0].word,
                "method": method,
                "n_queries": len(metrics),
                "n_patients": int(patient.max()) + 1,
            }
            low, high = _mean_interval(metrics, weights)
            delta = metrics - full
            delta_low, delta_high = _mean_interval(delta, weights)
            for i, metric in enumerate(METRICS):
                name = COLUMN_OF[metric]
                row[name] = float(metrics[:, i].mean())
                row[f"{name}_low"], row[f"{name}_high"] = float(low[i]), float(high[i])
            for i, name in ((P1, "delta_p_at_1"), (AP, "delta_map")):
                row[name] = float(delta[:, i].mean())
                row[f"{name}_low"] = float(delta_low[i])
                row[f"{name}_high"] = float(delta_high[i])
            rows.append(row)
    return pl.DataFrame(rows)


@dataclass(frozen=True)
class _QueryWeights:
    """Resampled patient weights [B, P] and the patient of each query [n]."""

    weights: NDArray[np.float64]
    patient: NDArray[np.intp]


def _query_weights(patient: NDArray[np.intp], statistics: dict[str, int]) -> _QueryWeights:
    rng = stream(statistics["seed"], "retrieval ci")
    n_patients = int(patient.max()) + 1
    return _QueryWeights(cluster_weights(n_patients, statistics["n_bootstrap"], rng), patient)


def _mean_interval(
    values: NDArray[np.float64], resamples: _QueryWeights
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Interval of the mean of each column of ``values`` [n, m], patients resampled."""
    sums = np.zeros((resamples.weights.shape[1], values.shape[1]))
    np.add.at(sums, resamples.patient, values)
    counts = np.bincount(resamples.patient, minlength=len(sums))
    means = (resamples.weights @ sums) / (resamples.weights @ counts)[:, None]
    return percentile_interval(means)
