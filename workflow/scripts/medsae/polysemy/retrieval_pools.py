"""Pools of occurrences, how well methods retrieve in them, and how surely that is known.

A pool is the occurrences of one term in the patients of one side, development or test; its
queries find candidates in the same pool only. With T_u a patient's part in a mean θ over queries,
as query and as candidate (``medsae.polysemy.retrieval_influence``),

    var θ̂ = P / (P − 1) · (Σ_u T_u² − Σ_ab C_ab²) / n²,

C_ab what patient b does to patient a's queries, which is in T_a and in T_b and must count once
(Fafchamps and Gubert 2007, Journal of Development Economics 83); never less than the variance
between the patients who ask. Differences have Student's interval and p, levels Wilson's. A
bootstrap of the patients who ask takes their candidates for given, and covers too little.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import t

from medsae.polysemy.retrieval import (
    METRICS,
    candidate_counts,
    cosine,
    ranking,
    ranking_metrics,
    rerank,
    sweep,
    without_anchors,
)
from medsae.polysemy.retrieval_baselines import Orders
from medsae.polysemy.retrieval_influence import candidate_influence, influence_of_patients
from medsae.polysemy.sparse import LemmaLatents
from medsae.statistics import MIN_CLUSTERS, clustered_share_interval

AP = METRICS.index("AP")


class Setting(NamedTuple):
    """How many first hits are re-ranked without how many of the largest latents, and what that
    gained on development patients (mean ΔAP)."""

    k: int
    n_anchor: int
    gain: float


@dataclass(frozen=True)
class Judged:
    """What is known of a method, or of its difference from stage 1, on one pool.

    ``metrics`` [n, 6] of the queries that have an answer; ``influence`` [P, 6] of each of the
    pool's patients as a candidate on all queries; ``interaction`` [6]: Σ C².
    """

    metrics: NDArray[np.float64]
    influence: NDArray[np.float64]
    interaction: NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """One term on the test side. ``asking``: index among ``patients`` of each query's patient;
    ``levels`` of each method, ``deltas`` of each but stage 1, which is ``full``."""

    word: str
    queries: pl.DataFrame
    patients: list[str]
    asking: NDArray[np.intp]
    levels: dict[str, Judged]
    deltas: dict[str, Judged]


def method_name(setting: Setting) -> str:
    """How ``Pool`` calls re-ranking by ``setting``."""
    return f"rerank@{setting.k}"


def choose_settings(
    development: Iterable[tuple[LemmaLatents, NDArray[np.integer]]],
    ks: Sequence[int],
    anchors: Sequence[int],
) -> list[Setting] | None:
    """For each k the anchors with the largest mean ΔAP; None if no query has an answer."""
    gains = []
    for latents, label in development:
        full, reranked = sweep(latents.codes, label, latents.patient, ks, anchors)
        answerable = ~np.isnan(full[:, AP])
        gains.append((reranked[..., AP] - full[:, AP])[:, :, answerable])
    gain = np.concatenate(gains, axis=2) if gains else np.empty((0, 0, 0))
    if not gain.size:
        return None
    mean = gain.mean(2)  # [anchors, ks]
    best = mean.argmax(axis=0)
    return [
        Setting(k, anchors[a], float(mean[a, index]))
        for index, (k, a) in enumerate(zip(ks, best, strict=True))
    ]


def judge_pool(
    latents: LemmaLatents,
    label: NDArray[np.integer],
    settings: Sequence[Setting],
    others: dict[str, Orders],
) -> Pool | None:
    """Judge every method on the occurrences ``latents`` with senses ``label`` [n].

    ``others``: rankings of the baselines. None if no query has an answer.
    """
    patient = latents.patient
    order = ranking(cosine(latents.codes), patient)
    answerable = ~np.isnan(ranking_metrics(order, label, patient)[:, AP])
    if not answerable.any():
        return None

    def judge(orders: Orders) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        metrics = np.mean([ranking_metrics(each, label, patient) for each in orders], axis=0)
        n_patients = int(patient.max()) + 1
        between = np.zeros((n_patients, n_patients, len(METRICS)))
        for each in orders:
            change = candidate_influence(each, label, patient)
            between += influence_of_patients(change, each, patient) / len(orders)
        return metrics[answerable], between

    n_candidates = candidate_counts(patient)
    methods = {"full": [order]}
    for n_anchor in sorted({setting.n_anchor for setting in settings}):
        similarity = cosine(without_anchors(latents.codes, n_anchor))
        for setting in settings:
            if setting.n_anchor == n_anchor:
                again = rerank(order, similarity, setting.k, n_candidates)
                methods[method_name(setting)] = [again]
    full = judge(methods["full"])
    levels, deltas = {}, {}
    for name, orders in (methods | others).items():
        metrics, between = judge(orders)
        levels[name] = _judged(metrics, between)
        deltas[name] = _judged(metrics - full[0], between - full[1])
    queries = latents.table.select("occurrence_id", "doc_id", "patient_id", "sense")
    return Pool(
        latents.lemma,
        queries.filter(pl.Series(answerable)),
        np.unique(latents.table["patient_id"].to_numpy()).tolist(),
        patient[answerable],
        levels,
        deltas,
    )


def _judged(metrics: NDArray[np.float64], between: NDArray[np.float64]) -> Judged:
    total = between.sum(0)
    return Judged(metrics, total - total.mean(0), np.square(between).sum((0, 1)))


@dataclass(frozen=True)
class Interval:
    """Mean over queries and its 95% interval, each [6]; NaN bounds with too few patients."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class Difference(Interval):
    """``p`` [6] of no difference, two-sided: below 0.05 where the interval excludes 0. NaN with
    too few patients, and where all differ alike."""

    p: NDArray[np.float64]


def level_of(pools: Sequence[Pool], method: str) -> Interval:
    """Mean metrics of ``method`` over all queries of ``pools``."""
    mean, error, n_patients = _estimate(pools, [pool.levels[method] for pool in pools])
    bounds = [
        (np.nan, np.nan)
        if n_patients < MIN_CLUSTERS
        else clustered_share_interval(min(float(m), 1.0), float(se), n_patients)
        for m, se in zip(mean, error, strict=True)
    ]
    low, high = np.array(bounds).T
    return Interval(mean, low, high)


def delta_of(pools: Sequence[Pool], method: str) -> Difference:
    """Mean paired difference of ``method`` from stage 1 over all queries of ``pools``."""
    mean, error, n_patients = _estimate(pools, [pool.deltas[method] for pool in pools])
    if n_patients < MIN_CLUSTERS:
        nothing = np.full_like(mean, np.nan)
        return Difference(mean, nothing, nothing, nothing)
    half = t.ppf(0.975, n_patients - 1) * error
    p = 2 * t.sf(np.abs(mean) / np.where(error > 0, error, np.nan), n_patients - 1)
    return Difference(mean, np.maximum(mean - half, -1), np.minimum(mean + half, 1), p)


def _estimate(
    pools: Sequence[Pool], judged: Sequence[Judged]
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Mean [6], standard error [6] and number of patients."""
    number = {
        name: index
        for index, name in enumerate(sorted({each for pool in pools for each in pool.patients}))
    }
    asked, influence = np.zeros((2, len(number), len(METRICS)))
    values = np.concatenate([each.metrics for each in judged])
    mean = values.mean(0)
    for pool, each in zip(pools, judged, strict=True):
        own = np.array([number[name] for name in pool.patients])
        np.add.at(asked, own[pool.asking], each.metrics - mean)
        influence[own] += each.influence
    interaction = np.sum([each.interaction for each in judged], axis=0)
    variance = np.square(asked + influence).sum(0) - interaction
    variance = np.maximum(variance, np.square(asked).sum(0))
    n_patients = len(number)
    correction = n_patients / max(n_patients - 1, 1)
    return mean, np.sqrt(correction * variance) / len(values), n_patients
