import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from medsae.statistics import cluster_mean, code_matrix, codes_of, ndcg_at, precision_at


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_ndcg_equals_scikit_learn(seed, k):
    rng = np.random.default_rng(seed)
    gains = rng.integers(0, 3, (4, 10)).astype(float)
    gains[:, 0] = 1
    scores = rng.permuted(np.tile(np.arange(10.0), (4, 1)), axis=1)
    order = np.argsort(-scores, axis=1)
    got = ndcg_at(np.take_along_axis(gains, order, axis=1), gains, k)
    for row in range(4):
        assert got[row] == pytest.approx(ndcg_score(gains[[row]], scores[[row]], k=k))


def test_ndcg_is_undefined_without_anything_to_find():
    assert np.isnan(ndcg_at(np.zeros((1, 3)), np.zeros((1, 3)), 3))[0]


def test_precision_is_of_as_many_results_as_there_are():
    hits = np.array([[True, False, True]])
    assert precision_at(hits, 2)[0] == 0.5
    assert precision_at(hits, 10)[0] == pytest.approx(2 / 3)


def test_a_mean_over_few_patients_has_no_interval():
    rng = np.random.default_rng(0)
    values = np.arange(12.0)
    assert cluster_mean(values, np.arange(12) % 4, 99, rng) == (5.5, None, None)
    mean, low, high = cluster_mean(values, np.arange(12) % 6, 999, rng)
    assert low < mean == 5.5 < high


def test_lists_become_rows_in_their_order():
    ids, values = pl.Series([[3, 1], [], None, [0]]), pl.Series([[2.0, 1.0], [], None, [5.0]])
    matrix = code_matrix(ids, values, 4)
    assert matrix.toarray().tolist() == [[0, 1, 0, 2], [0] * 4, [0] * 4, [5, 0, 0, 0]]
    assert codes_of(pl.Series(["b", "a", "b"])).tolist() == [1, 0, 1]
