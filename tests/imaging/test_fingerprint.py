import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_array

from medsae.imaging.fingerprint import (
    FINGERPRINT_METHOD,
    best_per_group,
    fingerprint_cosine,
    fingerprint_summary,
    fingerprint_table,
    largest,
    without_constant,
)
from medsae.imaging.result_columns import FINGERPRINT


def test_cosine_is_taken_on_the_columns_of_the_query():
    rng = np.random.default_rng(0)
    values = np.where(rng.random((30, 12)) < 0.5, rng.random((30, 12)), 0)
    got = fingerprint_cosine(largest(csr_array(values[:5]), 3), csr_array(values))
    for i in range(5):
        top = [j for j in np.argsort(-values[i], kind="stable")[:3] if values[i, j] > 0]
        for j in range(30):
            a, b = values[i, top], values[j, top]
            length = np.linalg.norm(a) * np.linalg.norm(b)
            assert got[i, j] == pytest.approx(a @ b / length if length else 0)


def test_features_active_everywhere_are_dropped():
    kept = without_constant(csr_array(np.array([[1.0, 2, 0], [3, 0, 0]])))
    assert kept.toarray().tolist() == [[0, 2, 0], [0, 0, 0]]


def test_one_result_per_group_best_first():
    similarity = np.array([[0.1, 0.9, 0.8, 0.3, -np.inf], [0.5, 0.5, 0.2, 0.5, 0.1]])
    group = np.array([0, 0, 1, 1, 2])
    assert best_per_group(similarity, group, 3).tolist() == [[1, 2, -1], [0, 3, 4]]


@pytest.fixture(scope="module")
def table(planted):
    rows = np.flatnonzero((planted.slices["split"] == "test").to_numpy())
    return fingerprint_table(
        planted.features[rows][:, :13],
        planted.dense[rows],
        planted.slices[rows],
        (1, 10),
        seed=0,
        n_queries=150,
    )


def test_no_result_is_of_the_querys_patient_and_none_shares_a_scan(planted, table):
    assert tuple(table.columns) == FINGERPRINT
    patient = dict(planted.slices.select("slice_key", "patient_id").iter_rows())
    for row in table.iter_rows(named=True):
        patients = [patient[key] for key in row["results"].split(";")]
        assert row["patient_id"] not in patients
        assert len(set(patients)) == len(patients) == 5


def test_planted_features_find_slices_of_the_same_labels(table):
    mean = table.group_by("method", "k").agg(pl.col(pl.Float64).mean())
    chosen = mean.filter((pl.col("method") == FINGERPRINT_METHOD) & (pl.col("k") == 10))
    chance = mean.filter(pl.col("method") == "random")
    for name in ("modality", "plane"):
        assert chosen[f"p_at_1_{name}"][0] > 0.97
        # few scans hold a slice with all that the query shows
        assert chosen[f"p_at_5_{name}"][0] > 0.85
        assert chance[f"p_at_5_{name}"][0] < 0.65
    # what a candidate shows beyond the query does not count against it
    assert chosen["p_at_1_organs"][0] > chance["p_at_1_organs"][0] + 0.3
    assert chosen["ndcg_at_10_organs"][0] > chance["ndcg_at_10_organs"][0] + 0.3


def test_random_order_is_at_chance(planted, table):
    test = planted.slices.filter(pl.col("split") == "test")
    chance = table.filter(pl.col("method") == "random")["p_at_5_plane"].mean()
    assert chance == pytest.approx(1 / 3, abs=0.06)
    assert test["plane"].n_unique() == 3


def test_published_quality_is_blind_to_labels(planted):
    """Embeddings that are nearly equal everywhere score highly whatever is retrieved."""
    rows = np.flatnonzero((planted.slices["split"] == "test").to_numpy())
    rng = np.random.default_rng(0)
    flat = (10 + 0.1 * rng.normal(size=(len(rows), 8))).astype(np.float32)
    noise = csr_array(
        rng.random((len(rows), 20)).astype(np.float32) * (rng.random((len(rows), 20)) < 0.5)
    )
    table = fingerprint_table(noise, flat, planted.slices[rows], (5,), 0, n_queries=50)
    own = table.filter(pl.col("method") == FINGERPRINT_METHOD)
    assert own["quality_published"].mean() > 0.99
    assert own["p_at_5_plane"].mean() < 0.5


def test_summary_has_intervals_over_patients(table):
    summary = fingerprint_summary(table, 200, 0)
    assert set(summary["method"]) == {"fingerprint", "all features", "dense", "random"}
    assert (
        (summary["mean_low"] <= summary["mean"]) & (summary["mean"] <= summary["mean_high"])
    ).all()


def covered_slices():
    """A query, a scan whose masks show the same, one without, and two drawn for tumours only."""
    return pl.DataFrame(
        {
            "slice_key": list("qabcd"),
            "scan": list("qabcd"),
            "patient_id": list("qabcd"),
            "modality": "ct",
            "plane": "axial",
            "organs": [["liver"], ["liver"], ["heart"], [], ["tumour"]],
            "structures": [["liver", "heart"]] * 3 + [["tumour"]] * 2,
        }
    )


def test_scans_whose_masks_cover_nothing_in_common_are_passed_over():
    # the fingerprint finds the two scans of tumours first, of whose liver nothing is known
    features = csr_array(np.array([[1.0, 1], [1, 0.6], [1, 0.2], [1, 1], [1, 0.9]]))
    dense = np.eye(5, dtype=np.float32)
    table = fingerprint_table(
        csr_array(np.hstack([features.toarray(), np.eye(5)[:, :1]])), dense, covered_slices(), (2,),
        seed=0, queried=np.array([True, False, False, False, False]),
    ).filter(pl.col("method") == "all features")  # fmt: skip
    row = table.row(0, named=True)
    assert row["slice_key"] == "q" and table.height == 1
    # of the scans that can be judged the first has the liver and the second has not
    assert row["p_at_1_organs"] == 1 and row["p_at_5_organs"] == 0.5
    assert row["ndcg_at_10_organs"] == pytest.approx(1)
    tumours = fingerprint_table(
        features, dense, covered_slices(), (2,), seed=0, queried=np.arange(5) == 4
    ).filter(pl.col("method") == "dense")
    # the only other scan with that mask shows none: Jaccard 0, and no order would be better
    assert tumours["p_at_1_organs"][0] == 0 and tumours["ndcg_at_10_organs"][0] is None


def test_the_best_order_has_one_slice_per_scan_like_the_results():
    slices = covered_slices().head(3)
    twice = pl.concat([slices, slices[1:2].with_columns(slice_key=pl.lit("a2"))])
    features = csr_array(np.array([[1.0, 1], [1, 0.9], [1, 0.1], [1, 0.8]]))
    table = fingerprint_table(
        csr_array(np.hstack([features.toarray(), np.eye(4)[:, :1]])), np.eye(4, dtype=np.float32),
        twice, (2,), seed=0, queried=np.arange(4) == 0,
    )  # fmt: skip
    found = table.filter(pl.col("method") == "all features")
    # two slices of one scan show the liver; one result per scan cannot hold both
    assert found["ndcg_at_10_organs"][0] == pytest.approx(1)
