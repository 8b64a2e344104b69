import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_array

from medsae.imaging.artifacts import open_embeddings
from medsae.imaging.concepts import concepts_of
from medsae.imaging.probes import fit_probes, judge_probes, split_rows
from medsae.imaging.recovery import SIZES, first_sizes, rank_features, recovery
from medsae.imaging.targets import targets_of


@pytest.fixture(scope="module")
def curves(planted):
    rows = split_rows(planted.slices, 0)
    targets = targets_of(concepts_of(planted.slices, metadata=True))
    store = open_embeddings(planted.folder / "embeddings", planted.slices)
    dense = {split: store.rows(index) for split, index in rows.items()}
    names = {"encoder": "planted", "representation": "dense"}
    fitted = fit_probes(dense["train"], rows["train"], planted.slices, targets)
    probes = judge_probes(fitted, dense, rows, planted.slices, targets, names, 9, 0)
    noise = np.random.default_rng(0).random((planted.slices.height, 64)).astype(np.float32)
    tables = {}
    for sae, features in (("planted", planted.features), ("noise", csr_array(noise))):
        matrices = {split: features[index] for split, index in rows.items()}
        names = {"base_model": "planted", "sae_config": sae}
        fitted = fit_probes(matrices["train"], rows["train"], planted.slices, targets)
        tables[sae] = recovery(matrices, rows, targets, probes, names, fitted)
    return tables


def of(table, target, split="test"):
    return table.filter((pl.col("target") == target) & (pl.col("split") == split))


def test_one_planted_feature_recovers_its_concept(planted, curves):
    for latent, concept in planted.concepts.items():
        curve = of(curves["planted"], concept)
        if curve.is_empty() or not concept.startswith("organ"):
            continue
        assert curve["n_features"].to_list() == list(SIZES)
        assert curve["recovery_above_chance"][0] > 0.98
        assert curve["features"].drop_nulls()[0].split(";")[0] == str(latent)


def test_useless_features_recover_half_as_published_and_nothing_above_chance(curves):
    curve = of(curves["noise"], "organ:liver")
    assert 0.4 < curve["recovery"].mean() < 0.6
    assert abs(curve["recovery_above_chance"].mean()) < 0.2


def test_definitions_side_by_side(curves):
    row = of(curves["planted"], "organ:liver").row(2, named=True)
    assert row["recovery"] == pytest.approx(row["auroc"] / row["auroc_dense"])
    assert row["recovery_above_chance"] == pytest.approx(
        (row["auroc"] - 0.5) / (row["auroc_dense"] - 0.5)
    )


def test_a_target_without_a_dense_probe_says_why(planted, curves):
    table = curves["planted"].filter(pl.col("target") == "institute:A")
    assert (table["reason"].is_not_null() | table["recovery_above_chance"].is_not_null()).all()


def test_first_sizes_have_known_answers_and_are_censored():
    curves = pl.DataFrame(
        {
            "target": ["a"] * 3 + ["b"] * 3 + ["c"],
            "n_features": [1, 5, 100, 1, 5, 100, 1],
            "recovery": [0.55, 0.85, 1.02, 0.2, 0.3, 0.65, None],
        }
    )
    table = first_sizes(curves, "recovery")
    a = table.filter(pl.col("target") == "a").sort("threshold")
    assert a["n_features"].to_list() == [1, 5, 5, 5, 100, 100]
    assert not a["censored"].any()
    b = table.filter(pl.col("target") == "b").sort("threshold")
    assert b["n_features"].to_list() == [100] * 6
    assert b["censored"].to_list() == [False, False, True, True, True, True]
    assert "c" not in table["target"]


def test_features_are_ranked_by_size_of_coefficient():
    assert rank_features(np.array([0, -3, 0.5, 3, 0])).tolist() == [1, 3, 2]
