import json

import numpy as np
import polars as pl
import pytest

from medsae.imaging.artifacts import SliceImages, feature_columns, open_embeddings, rows_of_split
from medsae.imaging.concepts import concepts_of
from medsae.imaging.interpret.ask import CachedModel
from medsae.imaging.interpret.explain import Evidence, LabelExplainer, ModelExplainer
from medsae.imaging.interpret.interpret import CHANCE, interpret
from medsae.imaging.interpret.judge import EmbeddingJudge, ModelJudge
from medsae.imaging.interpret.prompts import Description
from medsae.statistics import wilson_interval


class Study:
    def __init__(self, planted):
        self.planted = planted
        self.concepts = concepts_of(planted.slices)
        self.embeddings = open_embeddings(planted.folder / "embeddings", planted.slices)
        self.images = SliceImages(planted.folder / "slices", planted.slices)
        train = rows_of_split(planted.slices, "train")
        self.train = train
        known = np.maximum(self.concepts.known[train].sum(0), 1)
        self.prevalence = self.concepts.present[train].sum(0) / known

    def run(self, ids, explainer, judge):
        selected = pl.DataFrame({"feature_idx": ids})
        return interpret(
            selected, self.planted.folder / "features.parquet", self.embeddings,
            self.planted.slices, 64, explainer, judge, ("val",), seed=0,
        )  # fmt: skip


@pytest.fixture(scope="module")
def study(planted):
    return Study(planted)


@pytest.fixture(scope="module")
def explainer(study):
    return LabelExplainer(study.concepts, study.prevalence)


@pytest.fixture(scope="module")
def judge(study):
    return EmbeddingJudge("planted", study.embeddings, study.concepts, study.train)


@pytest.fixture(scope="module")
def result(study, explainer, judge):
    return study.run([*study.planted.concepts, 20, study.planted.never], explainer, judge)


def test_planted_features_get_their_names(result):
    names = dict(result.descriptions.select("feature_idx", "concept").iter_rows())
    assert names[2] == "liver" and names[6] == "CT" and names[7] == "axial" and names[8] == "woman"


def test_an_independent_judge_confirms_them(result, planted):
    tested = result.descriptions.filter(pl.col("feature_idx").is_in(list(planted.concepts)))
    assert tested["success"].mean() > 0.9
    metrics = result.metrics
    assert metrics["chance"] == CHANCE == 0.4
    assert metrics["pvalue_above_chance"] < 0.01
    low, high = wilson_interval(metrics["n_success"], metrics["n_tested"])
    assert (metrics["success_rate_low"], metrics["success_rate_high"]) == (low, high)
    json.dumps(metrics, allow_nan=False)


def test_a_feature_without_slices_is_listed_with_the_reason(result, planted):
    row = result.descriptions.row(by_predicate=pl.col("feature_idx") == planted.never, named=True)
    assert row["success"] is None
    assert row["reason"] == "active in 0 training and 0 judged scans"


def test_slices_judged_are_not_those_named_from(result, planted):
    split = dict(planted.slices.select("slice_key", "split").iter_rows())
    roles = result.samples.group_by("role").agg(pl.col("slice_key"))
    for role, keys in roles.iter_rows():
        assert {split[key] for key in keys} == {"val" if role == "judged" else "train"}
    counts = result.samples.group_by("feature_idx", "role").len()
    assert (counts.filter(pl.col("role") == "shown")["len"] == 5).all()


def test_activation_statistics_are_those_of_the_columns(result, planted):
    rows = rows_of_split(planted.slices, "train")
    values = planted.features[rows][:, [2]].toarray().ravel()
    row = result.statistics.row(
        by_predicate=(pl.col("feature_idx") == 2) & (pl.col("split") == "train"), named=True
    )
    assert row["n_active"] == (values > 0).sum()
    assert row["mean_active"] == pytest.approx(values[values > 0].mean())
    columns = feature_columns(
        planted.folder / "features.parquet", np.array([2, 5]), len(planted.slices)
    )
    assert np.array_equal(columns.toarray(), planted.features[:, [2, 5]].toarray())


class Stub:
    """A model that answers from a list and counts what it is asked."""

    identity = "stub"

    def __init__(self, answer):
        self.answer, self.prompts, self.images = answer, [], []

    def ask(self, prompt, images):
        self.prompts.append(prompt)
        self.images.append(images)
        return self.answer


def test_an_unreadable_ranking_is_a_failure_not_a_rank(study, explainer, tmp_path):
    silent = ModelJudge(CachedModel(Stub("I cannot say"), tmp_path / "c.json"), study.images)
    result = study.run(list(range(8)), explainer, silent)
    assert result.descriptions["rank"].is_null().all()
    assert not result.descriptions["success"].any()
    assert result.metrics["success_rate"] == 0
    assert result.metrics["n_rankings_not_read"] == 8


def test_an_unreadable_description_is_a_failure_too(study, judge, tmp_path):
    model = CachedModel(Stub("no JSON here"), tmp_path / "c.json")
    result = study.run(
        list(range(6)), ModelExplainer(model, study.images, study.planted.slices), judge
    )
    assert result.metrics["n_descriptions_not_read"] == 6
    assert result.metrics["success_rate"] == 0


def test_a_constant_judge_is_at_chance(study, explainer, tmp_path):
    first = Stub('{"ranking": [1, 2, 3, 4, 5]}')
    cached = CachedModel(first, tmp_path / "c.json")
    result = study.run(list(range(13)), explainer, ModelJudge(cached, study.images))
    assert 0.1 < result.metrics["success_rate"] < 0.75


def test_the_judge_sees_pixels_and_descriptions_but_no_metadata(study, explainer, tmp_path):
    stub = Stub('{"ranking": [1, 2, 3, 4, 5]}')
    model = CachedModel(stub, tmp_path / "c.json")
    study.run(list(range(6)), explainer, ModelJudge(model, study.images))
    assert all(len(images) == 5 and images[0].dtype == np.uint8 for images in stub.images)
    for prompt in stub.prompts:
        assert "p0" not in prompt and "patient_id" not in prompt and "institute" not in prompt


def test_the_explainer_is_told_what_is_known_but_not_who(study, tmp_path):
    stub = Stub('{"concept": "a", "description": "b"}')
    explainer = ModelExplainer(
        CachedModel(stub, tmp_path / "c.json"), study.images, study.planted.slices
    )
    evidence = Evidence(0, np.arange(20), np.arange(5))
    assert explainer.describe(evidence) == Description("a", "b")
    assert "modality: mr" in stub.prompts[0] and "plane: axial" in stub.prompts[0]
    assert "p000" not in stub.prompts[0] and "s000" not in stub.prompts[0]


def test_masks_are_read_for_overlays(study):
    assert study.images.mask(0, "liver").sum() == 64
    assert study.images.mask(0, "spleen") is None
    assert study.images.pixels(30).shape == (24, 24)
