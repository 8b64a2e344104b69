import numpy as np
import polars as pl
import pytest

from medsae.imaging.artifacts import rows_of_split
from medsae.imaging.concepts import Concepts, concepts_of
from medsae.imaging.interpret.ask import CachedModel
from medsae.imaging.language_retrieval import (
    LabelPicker,
    ModelPicker,
    Query,
    language_retrieval,
    language_summary,
    templated_queries,
)
from medsae.imaging.phrases import sentence
from medsae.imaging.result_columns import LANGUAGE_RETRIEVAL


@pytest.fixture(scope="module")
def setting(planted):
    rows = rows_of_split(planted.slices, "test")
    concepts = concepts_of(planted.slices)
    here = Concepts(concepts.names, concepts.present[rows], concepts.known[rows])
    descriptions = pl.DataFrame(
        {
            "feature_idx": list(planted.concepts),
            "description": [sentence([name]) for name in planted.concepts.values()],
        }
    )
    train = planted.features[rows_of_split(planted.slices, "train")].toarray()
    mean = np.array([column[column > 0].mean() if column.any() else 0 for column in train.T])
    return rows, concepts, here, descriptions, mean


@pytest.fixture(scope="module")
def table(planted, setting):
    rows, concepts, here, descriptions, mean = setting
    queries = templated_queries(concepts, rows, seed=0)
    return language_retrieval(
        queries, LabelPicker(descriptions, concepts.names), list(planted.concepts),
        planted.features[rows], mean, here, planted.slices[rows], seed=0,
    )  # fmt: skip


def test_there_are_at_least_a_hundred_different_answerable_queries(planted, setting):
    rows, concepts, *_ = setting
    queries = templated_queries(concepts, rows, seed=0)
    assert len({query.text for query in queries}) == len(queries) >= 100
    for query in queries:
        chosen = [concepts.index(name) for name in query.concepts]
        n = concepts.present[rows][:, chosen].all(1).sum()
        assert 0 < n < len(rows)
    few = templated_queries(concepts, rows, seed=0, limit=120)
    assert 100 <= len(few) <= 130


def test_the_features_that_stand_for_the_words_are_picked(setting):
    _, concepts, _, descriptions, _ = setting
    picker = LabelPicker(descriptions, concepts.names)
    assert picker.pick("Axial CT slice showing the liver of a woman") == [6, 7, 2]
    assert picker.pick("an MRI of the spleen") == [11, 4]
    assert picker.pick("pictures of the moon") is None


def test_a_description_of_just_the_concept_is_preferred(setting):
    _, concepts, *_ = setting
    descriptions = pl.DataFrame(
        {"feature_idx": [5, 9], "description": ["CT slice showing the liver", "the liver"]}
    )
    assert LabelPicker(descriptions, concepts.names).pick("slice showing the liver") == [9]


def test_planted_features_find_what_is_asked_for(table):
    assert tuple(table.columns) == LANGUAGE_RETRIEVAL
    summary = language_summary(table, 99, 0)
    of = {
        (m, a): r
        for m, a, r in zip(
            summary["method"], summary["attribute"], summary.iter_rows(named=True), strict=True
        )
    }
    for attribute in ("modality", "plane", "organ"):
        assert of["picked", attribute]["p_at_10"] > 0.75
        assert of["picked", attribute]["gain_at_10_low"] > 0
    counts = table.filter(attribute="all").with_columns(
        n=pl.col("features").str.split(";").list.len()
    )
    pairs = counts.select("query_id", "method", "n").pivot("method", index="query_id", values="n")
    answered = pairs.filter(pl.col("picked").is_not_null())
    assert answered["picked"].equals(answered["random features"]) and answered["picked"].min() < 3
    # random described features are worse, and near the prevalence
    assert of["random features", "all"]["p_at_10"] < of["picked", "all"]["p_at_10"] - 0.2
    assert of["random features", "organ"]["gain_at_10"] < 0.2


def test_known_answers_of_one_query(planted, setting):
    rows, _, here, _, mean = setting
    query = Query("the liver", ("organ:liver",))

    class Picks:
        identity = "fixed"

        def pick(self, text):
            return [2]

    table = language_retrieval(
        [query], Picks(), [2], planted.features[rows], mean, here, planted.slices[rows], 0
    )
    row = table.row(0, named=True)
    liver = planted.slices["organs"].list.contains("liver").to_numpy()[rows]
    assert row["p_at_10"] == 1 and row["ndcg_at_10"] == pytest.approx(1)
    assert row["prevalence"] == pytest.approx(liver.mean())
    assert row["n_relevant"] == liver.sum()


class Fails:
    identity = "fails"

    def __init__(self, answers):
        self.answers = list(answers)
        self.n = 0

    def ask(self, prompt, images):
        self.n += 1
        return self.answers.pop(0)


def test_a_model_has_three_attempts_and_then_has_failed(planted, setting, tmp_path):
    rows, _, here, descriptions, mean = setting
    model = Fails(["?", "?", '{"features": [6, 7, 2]}'])
    picker = ModelPicker(CachedModel(model, tmp_path / "a.json"), descriptions)
    assert picker.pick("axial CT of the liver") == [6, 7, 2]
    assert picker.pick("axial CT of the liver") == [6, 7, 2] and model.n == 3
    hopeless = ModelPicker(CachedModel(Fails("???"), tmp_path / "b.json"), descriptions)
    table = language_retrieval(
        [Query("the liver", ("organ:liver",))], hopeless, [2, 3, 4], planted.features[rows],
        mean, here, planted.slices[rows], 0,
    ).filter(pl.col("method") == "picked")  # fmt: skip
    assert not table["parsed"].any() and (table["p_at_10"] == 0).all()
