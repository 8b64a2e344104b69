"""Intervals of retrieval cover what the study would find on the average of many such studies, and
its p holds its level."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.stats import binom

from medsae.polysemy.retrieval import METRICS, cosine, ranking, ranking_metrics
from medsae.polysemy.retrieval_influence import candidate_influence, influence_of_patients
from medsae.polysemy.retrieval_pools import Setting, delta_of, judge_pool, level_of
from medsae.polysemy.sparse import LemmaLatents


@given(st.integers(0, 10_000), st.integers(4, 12))
def test_influence_is_the_metric_minus_that_without_the_candidate(seed, n):
    rng = np.random.default_rng(seed)
    patient = np.sort(np.unique(rng.integers(0, 5, n), return_inverse=True)[1])
    label = rng.integers(0, 2, n)
    similarity = rng.random((n, n))
    order = ranking(similarity, patient)
    change = candidate_influence(order, label, patient)
    metrics = ranking_metrics(order, label, patient)
    for query in range(n):
        for rank, candidate in enumerate(order[query]):
            kept = np.flatnonzero(np.arange(n) != candidate)
            own = patient[candidate] == patient[query]
            relevant = (label == label[query]) & (patient != patient[query])
            if own or relevant.sum() < 2:
                assert (change[query, rank] == 0).all()
                continue
            again = ranking(similarity[np.ix_(kept, kept)], patient[kept])
            without = ranking_metrics(again, label[kept], patient[kept])
            expected = metrics[query] - without[np.searchsorted(kept, query)]
            np.testing.assert_allclose(change[query, rank], expected, atol=1e-12)


def test_influence_is_summed_by_patient_and_centred():
    rng = np.random.default_rng(1)
    patient = np.repeat(np.arange(4), [1, 3, 2, 2])
    order = np.argsort(rng.random((8, 8)), axis=1)
    change = rng.normal(size=(8, 8, 2))
    expected = np.zeros((4, 4, 2))
    for query in range(8):
        for rank, candidate in enumerate(order[query]):
            expected[patient[query], patient[candidate]] += change[query, rank]
    expected -= expected.sum(1, keepdims=True) / 3
    expected[np.diag_indices(4)] = 0
    found = influence_of_patients(change, order, patient)
    np.testing.assert_allclose(found, expected)


def drawn(rng, strength, n_patients=50, n_latents=60, k=8):
    """A term whose codes depend on the sense by ``strength``, and on the patient."""
    patient = np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients))
    n = len(patient)
    main = rng.integers(0, 2, n_patients)
    label = np.where(rng.random(n) < 0.8, main[patient], rng.integers(0, 2, n)).astype(np.int8)
    rate = 0.5 * rng.random((n, n_latents)) + 0.5 * rng.random((n_patients, n_latents))[patient]
    rate[:, :6] += strength * (label[:, None] == 0)
    rate[:, 6:12] += strength * (label[:, None] == 1)
    ids = np.argsort(-rate, axis=1)[:, :k].astype(np.int32)
    z = -np.sort(-rng.gamma(2, size=(n, k)), axis=1)
    codes = csr_array((z.ravel(), ids.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n_latents))
    names = [f"p{each:03d}" for each in patient]
    table = pl.DataFrame(
        {"occurrence_id": range(n), "doc_id": names, "patient_id": names, "sense": label}
    )
    return LemmaLatents("term", "polysemous", table, codes), label


@pytest.mark.parametrize("strength", [0.0, 0.15])
def test_intervals_cover_what_is_found_on_average(strength):
    """New patients as queries and as candidates; 150 studies.

    Taking the candidates for given, intervals of P@1 cover 0.8 of the time here.
    """
    setting = Setting(10, 2, 0.0)
    levels, deltas = [], []
    for number in range(150):
        latents, label = drawn(np.random.default_rng([number, 7]), strength)
        pool = judge_pool(latents, label, [setting], {})
        levels.append(level_of([pool], "full"))
        deltas.append(delta_of([pool], "rerank@10"))
    for intervals in (levels, deltas):
        truth = np.mean([each.mean for each in intervals], axis=0)
        covered = sum((each.low <= truth) & (truth <= each.high) for each in intervals)
        for metric in ("P@1", "AP"):
            assert covered[METRICS.index(metric)] >= binom.ppf(0.001, 150, 0.94), metric


@pytest.mark.parametrize("strength", [0.0, 0.15])
def test_p_holds_its_level_where_two_rankings_know_as_much(strength):
    """The even latents against the odd ones, each with half of the senses' own; 500 studies.

    In 2,000 studies each p rejects 0.042 and 0.053 at .05, 0.166 and 0.198 at .2. Flipping the
    signs of all of a patient's differences, which takes the candidates for given though queries
    share them, rejects 0.087 and 0.107, 0.261 and 0.287.
    """
    n_sets, p1 = 500, METRICS.index("P@1")
    pvalues = []
    for number in range(n_sets):
        latents, label = drawn(np.random.default_rng([number, 5]), strength, n_latents=120, k=24)
        even, odd = latents.codes[:, ::2], latents.codes[:, 1::2]
        other = {"odd": [ranking(cosine(odd), latents.patient)]}
        pool = judge_pool(replace(latents, codes=even), label, [], other)
        delta = delta_of([pool], "odd")
        excludes = (delta.low > 0) | (delta.high < 0)
        np.testing.assert_array_equal(delta.p < 0.05, excludes)
        pvalues.append(delta.p[p1])
    for level in (0.05, 0.2):
        low, high = binom.ppf([0.0005, 0.9995], n_sets, level)
        assert low <= (np.array(pvalues) <= level).sum() <= high


def test_terms_of_the_same_patients_are_not_independent_evidence():
    latents, label = drawn(np.random.default_rng(3), 0.15)
    pool = judge_pool(latents, label, [Setting(10, 2, 0.0)], {})
    one, twice = (level_of(pools, "full") for pools in ([pool], [pool, pool]))
    np.testing.assert_allclose(one.mean, twice.mean)
    assert (twice.high - twice.low >= 0.99 * (one.high - one.low)).all()


def test_the_difference_of_stage_1_from_itself_is_nothing():
    latents, label = drawn(np.random.default_rng(4), 0.15)
    pool = judge_pool(latents, label, [Setting(10, 2, 0.0)], {})
    none = delta_of([pool], "full")
    assert (none.mean == 0).all() and (none.low == 0).all() and (none.high == 0).all()
    assert np.isnan(none.p).all()


def test_few_patients_have_no_interval():
    latents, label = drawn(np.random.default_rng(5), 0.6, n_patients=4)
    pool = judge_pool(latents, label, [Setting(5, 2, 0.0)], {})
    assert np.isnan(level_of([pool], "full").low).all()
    delta = delta_of([pool], "rerank@5")
    assert np.isnan(delta.high).all() and np.isnan(delta.p).all()
