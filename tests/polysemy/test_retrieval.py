import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.metrics import average_precision_score

from medsae.polysemy.retrieval import (
    METRICS,
    candidate_counts,
    cosine,
    dense_cosine,
    ranking,
    ranking_metrics,
    rerank,
    sweep,
    without_anchors,
    without_random,
)
from medsae.statistics import stream


def random_codes(rng, n=20, k=5, n_latents=30):
    ids = np.concatenate([rng.choice(n_latents, k, replace=False) for _ in range(n)])
    z = -np.sort(-rng.gamma(2, size=(n, k)), axis=1).ravel()
    return csr_array((z, ids.astype(np.int32), np.arange(0, n * k + 1, k)), shape=(n, n_latents))


def test_cosine_equals_its_definition_and_is_zero_with_an_empty_row():
    codes = random_codes(np.random.default_rng(0))
    dense = codes.toarray()
    norms = np.linalg.norm(dense, axis=1)
    np.testing.assert_allclose(cosine(codes), dense @ dense.T / np.outer(norms, norms))
    assert (cosine(csr_array((3, 4), dtype=np.float32)) == 0).all()
    np.testing.assert_allclose(dense_cosine(dense), cosine(codes), atol=1e-11)


def test_anchors_are_the_largest_latents():
    codes = random_codes(np.random.default_rng(1))
    left = without_anchors(codes, 2).toarray()
    for before, after in zip(codes.toarray(), left, strict=True):
        largest = np.argsort(-before)[:2]
        assert (after[largest] == 0).all()
        kept = np.setdiff1d(np.arange(30), largest)
        np.testing.assert_array_equal(after[kept], before[kept])
    assert without_anchors(codes, 9).nnz == 0


def test_random_latents_are_dropped_from_every_row():
    codes = random_codes(np.random.default_rng(2), n=400)
    left = without_random(codes, 2, stream(0))
    assert (np.diff(left.indptr) == 3).all()
    dense, after = codes.toarray(), left.toarray()
    assert ((after == 0) | (after == dense)).all()
    # the largest latent of a row is dropped 2 times of 5
    dropped = after[np.arange(400), dense.argmax(1)] == 0
    assert 0.3 < dropped.mean() < 0.5
    assert without_random(codes, 9, stream(0)).nnz == 0


def naive_metrics(similarity, label, patient, query):
    """Metrics of one query from their definitions."""
    others = [i for i in range(len(label)) if patient[i] != patient[query]]
    order = sorted(others, key=lambda i: -similarity[query, i])
    relevant = [label[i] == label[query] for i in order]
    if not any(relevant):
        return [np.nan] * 6
    precision = [np.mean(relevant[:k]) for k in (1, 3, 5, 10)]
    scores = [similarity[query, i] for i in order]
    return [*precision, 1 / (relevant.index(True) + 1), average_precision_score(relevant, scores)]


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(3, 15), st.integers(2, 6))
def test_metrics_equal_their_definitions(seed, n, n_patients):
    rng = np.random.default_rng(seed)
    patient = np.unique(rng.integers(0, n_patients, n), return_inverse=True)[1]
    label = rng.integers(0, 2, n)
    similarity = rng.random((n, n))
    found = ranking_metrics(ranking(similarity, patient), label, patient)
    assert found.shape == (n, len(METRICS))
    for query in range(n):
        if (patient == patient[query]).all():
            continue
        expected = naive_metrics(similarity, label, patient, query)
        np.testing.assert_allclose(found[query], expected)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 30))
def test_reranking_permutes_the_first_k_and_leaves_the_rest(seed, k):
    rng = np.random.default_rng(seed)
    patient = np.sort(rng.integers(0, 5, 14))
    patient = np.unique(patient, return_inverse=True)[1]
    first, second = rng.random((2, 14, 14))
    order = ranking(first, patient)
    n_candidates = candidate_counts(patient)
    again = rerank(order, second, k, n_candidates)
    for query in range(14):
        n = n_candidates[query]
        m = min(k, n)
        head = again[query, :m]
        assert sorted(head) == sorted(order[query, :m])
        assert (np.diff(second[query, head]) <= 0).all()
        np.testing.assert_array_equal(again[query, m:n], order[query, m:n])
        assert (patient[again[query, n:]] == patient[query]).all()


def test_reranking_by_the_same_similarity_changes_nothing():
    rng = np.random.default_rng(3)
    patient = np.arange(12)
    similarity = rng.random((12, 12))
    order = ranking(similarity, patient)
    np.testing.assert_array_equal(rerank(order, similarity, 7, candidate_counts(patient)), order)


def test_dropping_anchors_that_hide_the_sense_brings_it_to_the_top():
    # the three largest latents belong to the writer's style, the next three to the sense
    rng = np.random.default_rng(4)
    n = 60
    label, style = rng.integers(0, 2, n), rng.integers(0, 2, n)
    ids = np.concatenate(
        [
            np.concatenate([3 * s + np.arange(3), 6 + 3 * own + np.arange(3)])
            for s, own in zip(style, label, strict=True)
        ]
    )
    z = np.tile([9.0, 8.0, 7.0, 3.0, 2.0, 1.0], n) + 0.1 * rng.random(6 * n)
    codes = csr_array((z, ids, np.arange(0, 6 * n + 1, 6)), shape=(n, 12))
    full, reranked = sweep(codes, label, np.arange(n), [10, 100], [1, 3])
    p1 = METRICS.index("P@1")
    assert reranked.shape == (2, 2, n, len(METRICS))
    # without all three anchors, over the whole pool, only the sense is left
    assert reranked[1, 1, :, p1].mean() == 1.0
    assert reranked[1, 1, :, METRICS.index("AP")].mean() == pytest.approx(1.0)
    assert full[:, METRICS.index("AP")].mean() < 0.95
