import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_array
from scipy.stats import binom, kstest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from medsae.polysemy import sense_probes
from medsae.polysemy.columns import SENSE_PROBES, SINGLE_PROBES
from medsae.polysemy.linked_latents import find_sense_linked_latents
from medsae.polysemy.probes import fit_single_probes, null_aurocs, probe_latents
from medsae.polysemy.sense_probes import cross_validate, out_of_fold_scores
from medsae.polysemy.sparse import read_lemmas, sense_sample
from medsae.polysemy.splits import discovery_half
from medsae.statistics import permuted_labels, stream


@pytest.fixture(scope="module", autouse=True)
def few_shuffles():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sense_probes, "N_SHUFFLES", 19)
        yield


@pytest.fixture(scope="module")
def probed(plant, statistics, tmp_path_factory):
    folder = tmp_path_factory.mktemp("probes")
    table = plant(
        {"lemma": "split", "strength": 0.5, "n_patients": 60},
        {"lemma": "same", "patient_share": 0.7, "n_patients": 30},
        {"lemma": "three", "senses": ("a", "b", "c"), "strength": 0.5, "n_patients": 45},
        {"lemma": "rare", "n_patients": 2},
    )
    path = folder / "occurrence_latents.parquet"
    table.write_parquet(path)
    find_sense_linked_latents(path, statistics).write_csv(folder / "linked.csv")
    return (
        table,
        path,
        folder / "linked.csv",
        *probe_latents(path, folder / "linked.csv", statistics),
    )


def test_fit_equals_scikit_learn():
    rng = np.random.default_rng(0)
    x = rng.gamma(1, size=(60, 5)) * (rng.random((60, 5)) < 0.4)
    y = rng.random(60) < 1 / (1 + np.exp(1 - 2 * x[:, 0]))
    w, b = fit_single_probes(x, y)
    for column in range(5):
        model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x[:, [column]], y)
        assert w[column] == pytest.approx(model.coef_[0, 0], abs=1e-5)
        assert b[column] == pytest.approx(model.intercept_[0], abs=1e-5)


def test_fit_of_separable_and_of_silent_latents_is_finite():
    x = np.array([[0.0, 0.0, 9.0], [0.0, 0.0, 9.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    w, b = fit_single_probes(x, np.array([False, False, True, True]))
    assert np.isfinite([w, b]).all()
    assert w[0] > 0
    assert w[1] == pytest.approx(0)
    assert w[2] < 0


def test_single_probes_are_trained_on_one_half_and_judged_on_the_other(probed):
    _, path, _, single, _ = probed
    assert single.columns == list(SINGLE_PROBES)
    samples = {
        lemma.lemma: sense_sample(lemma, 5)
        for lemma in read_lemmas(path, "z_values_norm", ("polysemous",))
    }
    for row in single.iter_rows(named=True):
        sample = samples[row["lemma"]]
        train = discovery_half(sample, 7)
        x = sample.latents.codes[:, [row["latent_id"]]].toarray().astype(float)
        y = sample.label == sample.senses.index(row["sense"])
        model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x[train], y[train])
        p = model.predict_proba(x[~train])[:, 1]
        assert row["w"] == pytest.approx(model.coef_[0, 0], abs=1e-3)
        assert row["b"] == pytest.approx(model.intercept_[0], abs=1e-3)
        assert row["ce_val"] == pytest.approx(log_loss(y[~train], p), abs=1e-3)
        assert row["auroc"] == pytest.approx(roc_auc_score(y[~train], p))
        assert row["ap"] == pytest.approx(average_precision_score(y[~train], p))
        assert row["ap_lift"] == pytest.approx(row["ap"] / y[~train].mean())
        assert row["n_test_positive"] == y[~train].sum()


def test_planted_latents_predict_their_sense(probed):
    *_, single, _ = probed
    own = single.filter(pl.col("lemma") == "split", pl.col("confirmed"))
    assert len(own) >= 10
    assert (own["auroc"] > 0.5).mean() > 0.9
    assert own["auroc_null"].is_between(0.4, 0.6).all()


def test_null_areas_equal_scikit_learn():
    rng = np.random.default_rng(2)
    patient = np.repeat(np.arange(15), 2)
    label = rng.integers(0, 2, 30).astype(np.int8)
    x = rng.integers(0, 4, (30, 3)).astype(float)
    found = null_aurocs(x, patient, label, 1, 20, stream(1))
    rows = np.concatenate(list(permuted_labels(label, patient, 20, stream(1))))
    expected = [[roc_auc_score(row, x[:, c]) for c in range(3)] for row in rows]
    np.testing.assert_allclose(found, expected)


def test_p_of_a_probe_without_effect_is_uniform():
    pvalues = []
    for number in range(500):
        rng = np.random.default_rng([number, 31])
        patient = np.repeat(np.arange(24), rng.integers(1, 4, 24))
        label = rng.integers(0, 2, 24)[patient].astype(np.int8)
        x = (rng.normal(size=24)[patient] + 0.3 * rng.normal(size=len(patient)))[:, None]
        null = null_aurocs(x, patient, label, 1, 199, stream(number))
        observed = roc_auc_score(label, x[:, 0])
        pvalues.append((1 + (null >= observed - 1e-12).sum()) / 200)
    assert kstest(pvalues, "uniform").pvalue > 0.001
    low, high = binom.ppf([0.0005, 0.9995], 500, 0.05)
    assert low <= (np.array(pvalues) <= 0.05).sum() <= high


def test_sense_probes_find_planted_senses_only(probed):
    *_, senses = probed
    assert senses.columns == list(SENSE_PROBES)
    for row in senses.filter(pl.col("lemma").is_in(["split", "three"])).iter_rows(named=True):
        assert row["auroc_low"] > 0.8
        assert row["auroc"] > row["auroc_null_high"]
        assert row["pvalue"] == pytest.approx(1 / 181)
        assert row["ap_lift"] > 1.3
        assert 0 < row["n_active_weights"] < 80
    for row in senses.filter(pl.col("lemma") == "same").iter_rows(named=True):
        assert row["auroc"] < 0.8
    rare = senses.filter(pl.col("lemma") == "rare")
    assert rare["auroc"].is_null().all()
    assert rare["reason"].is_not_null().all()


def test_two_senses_share_one_probe(probed):
    *_, senses = probed
    one, two = senses.filter(pl.col("lemma") == "split").rows(named=True)
    assert one["auroc"] == pytest.approx(two["auroc"])
    assert one["n_positive"] == two["n_negative"]
    assert one["prevalence"] + two["prevalence"] == pytest.approx(1)


def test_what_is_promising_is_shuffled_until_one_sense_alone_could_be_found(probed):
    *_, senses = probed
    shuffles = {(r["lemma"], r["sense"]): r for r in senses.iter_rows(named=True)}
    # nine senses: 9 / 0.05 shuffles
    assert shuffles["split", "one"]["n_shuffles"] == 180
    assert shuffles["split", "one"]["pvalue"] == pytest.approx(1 / 181)
    same = shuffles["same", "one"]
    assert same["n_shuffles"] == 19 or same["pvalue"] < 0.5


def test_no_occurrence_is_scored_by_a_probe_that_saw_its_patient():
    # each patient has a latent of its own: a probe that saw the patient would know the answer
    rng = np.random.default_rng(3)
    patient = np.repeat(np.arange(40), 4)
    positive = rng.permutation(np.arange(40) % 2 == 0)[patient]
    codes = csr_array(np.eye(40, dtype=np.float32)[patient])
    scores, n_folds = out_of_fold_scores(codes, positive, patient, 0)
    assert n_folds == 5
    assert roc_auc_score(positive, scores) < 0.65


def test_patients_too_few_for_two_folds_give_nothing():
    codes = csr_array(np.eye(4, dtype=np.float32))
    positive = np.array([True, True, False, False])
    assert out_of_fold_scores(codes, positive, np.array([0, 0, 1, 2]), 0) is None
    assert (
        cross_validate(codes, positive.astype(np.int8), 1, np.array([0, 0, 1, 2]), 19, stream(0))
        is None
    )


def null_set(number, n_patients=16, n_latents=12):
    rng = np.random.default_rng([number, 41])
    patient = np.repeat(np.arange(n_patients), 2)
    label = (rng.permutation(n_patients) % 2)[patient].astype(np.int8)
    rate = rng.choice([0.1, 0.8], (n_patients, n_latents))[patient]
    return csr_array((rng.random(rate.shape) < rate).astype(np.float32)), label, patient


def null_pvalues(n_sets, monkeypatch):
    monkeypatch.setattr(sense_probes, "N_FOLDS", 2)
    pvalues = []
    for number in range(n_sets):
        codes, label, patient = null_set(number)
        result = cross_validate(codes, label, 1, patient, 0, stream(number))
        observed = roc_auc_score(label == 1, result.scores)
        reaching = 19 - (result.null < observed - 1e-12).sum()
        assert result.pvalue == (1 + reaching) / 20
        pvalues.append(result.pvalue)
    return np.array(pvalues)


def test_sense_probe_does_not_exceed_its_level(monkeypatch):
    pvalues = null_pvalues(40, monkeypatch)
    assert (pvalues <= 0.05).sum() <= binom.ppf(0.9995, 40, 0.05)
    assert 0.3 < pvalues.mean() < 0.7


@pytest.mark.slow
def test_p_of_a_sense_probe_without_effect_is_uniform(monkeypatch):
    pvalues = null_pvalues(500, monkeypatch)
    low, high = binom.ppf([0.0005, 0.9995], 500, [[0.05], [0.2], [0.5]]).T
    rejected = [(pvalues <= alpha).sum() for alpha in (0.05, 0.2, 0.5)]
    assert (low <= rejected).all()
    assert (rejected <= high).all()


def test_row_order_does_not_matter(probed, write_latents, statistics):
    table, _, linked, single, senses = probed
    path = write_latents(table.sample(fraction=1, shuffle=True, seed=3), "shuffled.parquet")
    again = probe_latents(path, linked, statistics)
    assert single.equals(again[0])
    assert senses.equals(again[1])
