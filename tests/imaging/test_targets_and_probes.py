import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from medsae.imaging.artifacts import feature_rows, open_embeddings, sample_rows
from medsae.imaging.concepts import concepts_of
from medsae.imaging.probes import fit_probes, judge, judge_probes, scaling_of, split_rows
from medsae.imaging.result_columns import LINEAR_PROBES
from medsae.imaging.targets import not_estimable, targets_of
from medsae.io import UserError


@pytest.fixture(scope="module")
def study(planted):
    rows = split_rows(planted.slices, 0)
    targets = targets_of(concepts_of(planted.slices, metadata=True))
    store = open_embeddings(planted.folder / "embeddings", planted.slices)
    dense = {split: store.rows(index) for split, index in rows.items()}
    return rows, targets, dense


def probe(matrices, rows, slices, targets, names, n_bootstrap, seed):
    fitted = fit_probes(matrices["train"], rows["train"], slices, targets)
    return judge_probes(fitted, matrices, rows, slices, targets, names, n_bootstrap, seed)


@pytest.fixture(scope="module")
def probes(planted, study):
    rows, targets, dense = study
    names = {"encoder": "planted", "control": None, "control_of": None, "representation": "dense"}
    return probe(dense, rows, planted.slices, targets, names, 99, 0)


def test_rows_of_files_are_rows_of_the_index(planted, study):
    rows, _, dense = study
    assert np.array_equal(dense["val"], planted.dense[rows["val"]])
    features = feature_rows(planted.folder / "features.parquet", rows["test"], 64)
    assert (features != planted.features[rows["test"]]).nnz == 0


def test_published_tasks_are_asked(study):
    _, targets, _ = study
    asked = dict(zip(targets.name, targets.task, strict=True))
    assert asked["modality:ct"] == "modality" and "modality:mr" not in asked
    assert [name for name in asked if name.startswith("plane:")] == [
        "plane:axial", "plane:coronal", "plane:sagittal",
    ]  # fmt: skip
    assert asked["sex:f"] == "sex" and asked["age:<40 against >=80"] == "age group"
    assert asked["organ:liver"] == "organ" and asked["institute:A"] == "institute"


def test_age_leaves_the_middle_out(planted, study):
    _, targets, _ = study
    t = targets.name.index("age:<40 against >=80")
    age = planted.slices["age"].to_numpy()
    assert np.array_equal(targets.used[:, t], (age < 40) | (age >= 80))
    assert np.array_equal(targets.positive[:, t], age < 40)


def test_planted_concepts_are_read_off_and_noise_is_not(probes):
    test = probes.filter(pl.col("split") == "test")
    found = dict(test.select("target", "auroc").iter_rows())
    assert found["organ:liver"] > 0.95 and found["modality:ct"] > 0.95
    assert abs(found["institute:A"] - 0.5) < 0.2
    assert tuple(probes.columns) == LINEAR_PROBES
    inside = test.filter(pl.col("auroc").is_not_null())
    assert (
        (inside["auroc_low"] <= inside["auroc"]) & (inside["auroc"] <= inside["auroc_high"])
    ).all()


def test_equals_saga_of_scikit_learn(planted, study):
    rows, targets, dense = study
    t = targets.name.index("organ:liver")
    scaling = scaling_of(dense["train"])
    x, z = scaling(dense["train"]), scaling(dense["test"])
    y, truth = (targets.positive[rows[split], t] for split in ("train", "test"))
    model = LogisticRegression(
        solver="saga", C=1, l1_ratio=0.5, class_weight="balanced", max_iter=1000, random_state=0
    ).fit(x, y)
    scores = model.decision_function(z)
    names = {"encoder": "planted", "representation": "dense"}
    table = probe(dense, rows, planted.slices, targets, names, 9, 0)
    row = table.row(
        by_predicate=(pl.col("target") == "organ:liver") & (pl.col("split") == "test"), named=True
    )
    assert row["auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=2e-3)
    assert row["ap"] == pytest.approx(average_precision_score(truth, scores), abs=5e-3)


def test_sparse_features_are_scaled_without_centring():
    x = csr_array(np.array([[0, 2, 0], [1, 0, 0], [0, 4, 0], [3, 0, 0]], np.float32))
    scaled = scaling_of(x)(x)
    assert scaled.nnz == x.nnz
    assert np.allclose(scaled.toarray()[:, :2].std(0), 1)


def test_what_too_few_scans_show_is_not_estimated(planted, study):
    rows, targets, dense = study
    slices = planted.slices.with_columns(
        sex=pl.when(pl.col("scan") == pl.col("scan").first())
        .then(pl.lit("f"))
        .otherwise(pl.lit("m"))
    )
    targets = targets_of(concepts_of(slices, metadata=True))
    t = targets.name.index("sex:f")
    reason = not_estimable(targets, slices, rows["train"], "train")[t]
    assert reason == "train: 24 slices of 1 scans with it"
    names = {"encoder": "planted", "representation": "dense"}
    table = probe(dense, rows, slices, targets, names, 9, 0).filter(pl.col("target") == "sex:f")
    assert table["auroc"].is_null().all() and table["reason"].is_not_null().all()


def test_samples_keep_the_share_of_each_scan_and_plane(planted):
    rows = np.arange(planted.slices.height)
    sample = sample_rows(planted.slices, rows, 576, 1)
    assert len(sample) == 576 and len(np.unique(sample)) == 576
    counts = planted.slices[sample].group_by("scan", "plane").len()["len"]
    assert counts.min() >= 1 and counts.max() <= 3
    assert np.array_equal(sample, sample_rows(planted.slices, rows, 576, 1))


def test_embeddings_of_other_slices_are_refused(planted):
    with pytest.raises(UserError, match="embed them again"):
        open_embeddings(planted.folder / "embeddings", planted.slices[:-1])


def test_one_scan_that_shows_both_classes_is_enough(planted, study):
    rows, targets, _ = study
    one = rows["test"][: 3 * 8]
    reasons = dict(
        zip(targets.name, not_estimable(targets, planted.slices, one, "test"), strict=True)
    )
    assert reasons["plane:axial"] is None and reasons["organ:liver"] is None
    assert reasons["modality:ct"].startswith("test: ") and reasons["sex:f"] is not None


def test_few_patients_have_no_interval():
    rng = np.random.default_rng(0)
    truth, scores = rng.random(60) < 0.5, rng.random(60)
    assert judge(truth, scores, np.arange(60) % 4, 99, rng)["auroc_low"] is None
    assert judge(truth, scores, np.arange(60) % 6, 99, rng)["auroc_low"] is not None
