"""The tables of retrieval: settings chosen on development patients, judged on test patients.

One split of the patients serves all terms: a patient is on one side as query and as candidate,
whatever the term. A number of anchors that would leave many occurrences without any latent is not
studied: their cosines would all be 0, and re-ranking would change nothing for want of anything to
compare.
"""

import logging
from collections.abc import Iterator, Sequence
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
from medsae.polysemy.retrieval import METRICS
from medsae.polysemy.retrieval_baselines import baselines, read_contexts
from medsae.polysemy.retrieval_pools import (
    AP,
    Pool,
    Setting,
    choose_settings,
    delta_of,
    judge_pool,
    level_of,
    method_name,
)
from medsae.polysemy.sparse import (
    LemmaLatents,
    cap_by_patient,
    codes_of,
    read_lemmas,
    sense_sample,
    source_of,
)
from medsae.polysemy.splits import halve_patients
from medsae.statistics import MIN_CLUSTERS, holm, mcnemar_exact, stream

MIN_OCCURRENCES = 30
"""Occurrences of a term that retrieval needs."""

MAX_POOL = 1_000
"""Occurrences of a term on one side that retrieval uses; more are cut by whole patients."""

EMPTIED = 0.05
"""Share of the occurrences that a number of anchors may leave without a latent."""

P1 = METRICS.index("P@1")
COLUMN_OF = dict(zip(METRICS, ("p_at_1", "p_at_3", "p_at_5", "p_at_10", "mrr", "map"), strict=True))

NOTHING_MOVES = "not testable: re-ranking changes no patient's P@1, or every patient's alike"
FEW_PATIENTS = f"not testable: the terms occur in fewer than {MIN_CLUSTERS} test patients"

logger = logging.getLogger("medsae")


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
    seed = statistics["seed"]
    shards = {Path(path).stem: Path(path) for path in activations}
    scan = pl.scan_parquet(latents).filter(pl.col("kind").cast(pl.String) == POLYSEMOUS)
    anchors = usable_anchors(scan, retrieval["n_anchor_sweep"])
    source = {name: pl.lit(value) for name, value in source_of(latents).items()}
    if not anchors:
        return _not_estimable("every n_anchor leaves occurrences without latents", source)
    known = scan.filter(pl.col("sense").is_not_null())
    developing = development_patients(known, seed)
    sides = list(_sides(latents, developing, statistics))
    settings = choose_settings(
        ((first.latents, first.label) for first, _ in sides), retrieval["k_sweep"], anchors
    )
    few = f"has {MIN_OCCURRENCES} occurrences whose sense other patients share"
    if settings is None:
        return _not_estimable(f"no term of the development patients {few}", source)
    chosen = int(np.argmax([setting.gain for setting in settings]))
    places = scan.select(
        "occurrence_id", pl.col("doc_id").cast(pl.String), "char_start", "char_end"
    ).collect()
    contexts = read_contexts(notes, places)
    test = []
    for first, second in progress(sides, "retrieval"):
        majority = second.label == np.bincount(first.label).argmax()
        rng = stream(seed, "baselines", second.latents.lemma)
        anchor = settings[chosen].n_anchor
        others = dict(baselines(second.latents, majority, contexts, shards, anchor, rng))
        pool = judge_pool(second.latents, second.label, settings, others)
        if pool is None:
            _left_out(second.latents, "no two test patients share a sense")
        else:
            test.append(pool)
    if not test:
        return _not_estimable(f"no term of the test patients {few}", source)
    detail = _detail(test, settings)
    summary = _summary(test, settings, chosen)
    compared = _baselines(test, settings[chosen])
    return (
        tidy(detail.with_columns(**source).select(RETRIEVAL_DETAIL)),
        tidy(summary.with_columns(**source).select(RETRIEVAL_SUMMARY)),
        tidy(compared.with_columns(**source).select(RETRIEVAL_BASELINES)),
    )


@dataclass(frozen=True)
class Side:
    """The occurrences of one term in the patients of one side, and their senses [n]."""

    latents: LemmaLatents
    label: NDArray[np.int8]


def development_patients(known: pl.LazyFrame, seed: int) -> frozenset[str]:
    """The patients, one half of all, on which settings are chosen, whatever the term.

    ``known``: the occurrences of ambiguous terms whose sense is known.
    """
    cells = (
        known.select(pl.col("patient_id", "lemma", "sense").cast(pl.String))
        .unique()
        .collect()
        .sort("patient_id", "lemma", "sense")
    )
    if cells.is_empty():
        return frozenset()
    cell = codes_of(cells.select(pl.concat_str("lemma", "sense", separator="\t")).to_series())
    patients, patient = np.unique(cells["patient_id"].to_numpy(), return_inverse=True)
    first = halve_patients(patient, cell, stream(seed, "retrieval halves"))
    return frozenset(str(each) for each in patients[first])


def _sides(
    latents: str | Path, developing: frozenset[str], statistics: dict[str, int]
) -> Iterator[tuple[Side, Side]]:
    """Development and test side of every term with enough occurrences on both together.

    The log names the others.
    """
    for lemma in read_lemmas(latents, kinds=(POLYSEMOUS,)):
        sample = sense_sample(lemma, statistics["min_occurrences"])
        n = len(sample.latents)
        if sample.reason is not None or n < MIN_OCCURRENCES:
            few = f"{n} occurrences of its senses, fewer than {MIN_OCCURRENCES}"
            _left_out(lemma, sample.reason or few)
            continue
        first = sample.latents.table["patient_id"].is_in(list(developing)).to_numpy()
        if first.all() or not first.any():
            _left_out(lemma, "all its patients are in one half")
            continue
        sides = []
        for name, rows in (("development", first), ("test", ~first)):
            own, label = sample.latents.take(rows), sample.label[rows]
            rng = stream(statistics["seed"], "pool", name, lemma.lemma)
            kept = cap_by_patient(own, MAX_POOL, rng)
            sides.append(Side(own.take(kept), label[kept]))
        yield sides[0], sides[1]


def _left_out(term: LemmaLatents, reason: str) -> None:
    logger.warning("retrieval leaves out '%s': %s", term.lemma, reason)


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


def _detail(test: list[Pool], settings: list[Setting]) -> pl.DataFrame:
    parts = []
    for setting in settings:
        for pool in test:
            full, after = (pool.levels[name].metrics for name in ("full", method_name(setting)))
            columns: dict[str, Any] = {}
            for number, metric in enumerate(METRICS):
                columns[f"full_{metric}"] = full[:, number]
                columns[f"rerank_{metric}"] = after[:, number]
                columns[f"delta_{metric}"] = after[:, number] - full[:, number]
            parts.append(
                pool.queries.rename({"sense": "query_sense"}).with_columns(
                    pl.lit(pool.word).alias("word"),
                    pl.lit(setting.k).alias("rerank_k"),
                    pl.lit(setting.n_anchor).alias("n_anchor"),
                    *(pl.Series(name, values) for name, values in columns.items()),
                )
            )
    return pl.concat(parts)


def _summary(test: list[Pool], settings: list[Setting], chosen: int) -> pl.DataFrame:
    patient = codes_of(pl.concat([pool.queries["patient_id"] for pool in test]))
    before = level_of(test, "full").mean
    rows = []
    for index, setting in enumerate(settings):
        name = method_name(setting)
        gain, after = delta_of(test, name), level_of(test, name).mean
        delta = np.concatenate([pool.deltas[name].metrics[:, P1] for pool in test])
        better, worse = int((delta > 0).sum()), int((delta < 0).sum())
        reason = None
        if np.isnan(gain.low[P1]):
            reason = FEW_PATIENTS
        elif better + worse == 0 or np.isnan(gain.p[P1]):
            reason = NOTHING_MOVES
        rows.append(
            {
                "k": setting.k,
                "delta_P@1_mean": float(gain.mean[P1]),
                "delta_P@1_ci": float(gain.high[P1] - gain.low[P1]) / 2,
                "delta_MAP_mean": float(gain.mean[AP]),
                "p_value": mcnemar_exact(better, worse) if better + worse else None,
                "p_clustered": None if reason else float(gain.p[P1]),
                "n": len(delta),
                "delta_P@1_low": float(gain.low[P1]),
                "delta_P@1_high": float(gain.high[P1]),
                "delta_MAP_low": float(gain.low[AP]),
                "delta_MAP_high": float(gain.high[AP]),
                "n_better": better,
                "n_worse": worse,
                "n_patients": int(patient.max()) + 1,
                "n_anchor": setting.n_anchor,
                "development_delta_MAP": setting.gain,
                "chosen": index == chosen,
                "reason": reason,
            }
            | {f"full_{metric}": float(before[i]) for i, metric in enumerate(METRICS)}
            | {f"rerank_{metric}": float(after[i]) for i, metric in enumerate(METRICS)}
        )
    table = pl.DataFrame(
        rows,
        schema_overrides={"reason": pl.String, "p_value": pl.Float64, "p_clustered": pl.Float64},
    )
    adjusted = holm(table["p_clustered"].fill_null(np.nan).to_numpy())
    return table.with_columns(pl.Series("p_adjusted", adjusted))


def _baselines(test: list[Pool], chosen: Setting) -> pl.DataFrame:
    """Every method over all terms and per term, with its paired difference from stage 1."""
    own = method_name(chosen)
    methods = [name for name in test[0].levels if "@" not in name or name == own]
    rows = []
    for pools in (test, *([pool] for pool in test)):
        patients = pl.concat([pool.queries["patient_id"] for pool in pools])
        for method in methods:
            row: dict[str, Any] = {
                "word": "all" if pools is test else pools[0].word,
                "method": "rerank" if method == own else method,
                "n_queries": len(patients),
                "n_patients": patients.n_unique(),
            }
            level, delta = level_of(pools, method), delta_of(pools, method)
            named = [(COLUMN_OF[metric], level, i) for i, metric in enumerate(METRICS)]
            named += [("delta_p_at_1", delta, P1), ("delta_map", delta, AP)]
            for name, interval, i in named:
                row[name] = float(interval.mean[i])
                row[f"{name}_low"] = float(interval.low[i])
                row[f"{name}_high"] = float(interval.high[i])
            rows.append(row)
    return pl.DataFrame(rows)
