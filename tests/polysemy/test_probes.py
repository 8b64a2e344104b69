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
from medsae.polysemy.probes import (
    _single_rows,
    fit_single_probes,
    null_aurocs,
    probe_latents,
)
from medsae.polysemy.sense_probes import cross_validate, out_of_fold_scores
from medsae.polysemy.sparse import read_lemmas, sense_sample
from medsae.polysemy.splits import discovery_half
from medsae.statistics import (
    NOT_EXCHANGEABLE,
    benjamini_hochberg,
    permuted_labels,
    precision_at_top,
    stream,
)


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


def test_without_linked_latents_no_single_latent_is_probed(probed, statistics, tmp_path):
    _, path, linked, single, senses = probed
    header = tmp_path / "linked.csv"
    pl.read_csv(linked).clear().write_csv(header)
    none, same = probe_latents(path, header, statistics)
    assert none.is_empty() and none.columns == single.columns
    assert same.equals(senses)


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


@pytest.mark.slow
def test_p_of_a_single_probe_in_the_table_is_uniform_without_effect(
    plant, write_latents, statistics
):
    pvalues = []
    for number in range(500):
        table = plant({"lemma": "a", "patient_share": 0.7, "n_patients": 30, "seed": number})
        path = write_latents(table)
        # whichever latents occur most, whatever is meant
        common = table["latent_ids"].explode().value_counts(sort=True)["latent_ids"][:2]
        linked = pl.DataFrame(
            {"lemma": "a", "sense": ["one", "two"], "latent_id": common, "confirmed": False}
        ).with_columns(discovered=pl.lit(True))
        linked.write_csv(path.with_suffix(".csv"))
        (lemma,) = read_lemmas(path, "z_values_norm", ("polysemous",))
        sample = sense_sample(lemma, statistics["min_occurrences"])
        rows = pl.concat(_single_rows(sample, linked, statistics | {"seed": number}))
        pvalues.append(rows["pvalue"].fill_nan(None).to_list())
    first = np.array([own[0] for own in pvalues if own[0] is not None])
    assert len(first) > 450
    for level in (0.05, 0.2, 0.5):
        low, high = binom.ppf([0.0005, 0.9995], len(first), level)
        assert low <= (first <= level).sum() <= high, level


def test_shuffling_on_what_is_promising_does_not_raise_its_level(monkeypatch):
    """Areas that are all alike, whatever the labels: p ≤ x in at most x of 2,000 terms."""
    rng = np.random.default_rng(5)
    patient = np.repeat(np.arange(12), 2)
    label = np.tile([0, 1], 12).astype(np.int8)
    codes = csr_array(np.eye(24, dtype=np.float32))
    nothing = np.zeros((2, 24)), np.ones(2, int)
    monkeypatch.setattr(sense_probes, "N_SHUFFLES", 19)
    monkeypatch.setattr(sense_probes, "PROMISING", 3)
    monkeypatch.setattr(sense_probes, "_all_scores", lambda *_: nothing)
    monkeypatch.setattr(sense_probes, "_areas", lambda *_: rng.random(2))
    monkeypatch.setattr(sense_probes, "_n_active", lambda *_: 0)
    mixed = rng.permutation(label)
    results = [cross_validate(codes, mixed, 2, patient, 199, stream(n)) for n in range(2000)]
    pvalues = np.array([result.pvalue for result in results])
    made = [result.n_shuffles for result in results]
    assert (min(made), max(made)) == (19, 199) and len(set(made)) > 50
    assert pvalues.min() == pytest.approx(1 / 200)
    for level in (0.005, 0.01, 0.05, 0.15, 0.5):
        assert (pvalues <= level).sum() <= binom.ppf(0.9995, 2000, level), level
    assert (pvalues <= 0.01).sum() >= binom.ppf(0.0005, 2000, 0.01)


def of_terms(senses):
    return {row["lemma"]: row for row in senses.filter(pl.col("sense").is_null()).to_dicts()}


def test_sense_probes_find_planted_senses_only(probed):
    *_, senses = probed
    assert senses.columns == list(SENSE_PROBES)
    own = senses.filter(pl.col("lemma").is_in(["split", "three"]), pl.col("sense").is_not_null())
    assert len(own) == 5
    for row in own.iter_rows(named=True):
        assert row["auroc"] > 0.9
        assert row["auroc"] > row["auroc_null_high"]
        assert row["ap_lift"] > 1.3
        assert row["precision_at_k"] > 0.9 and row["precision_k"] == 10
        assert 0 < row["n_active_weights"] < 80
    terms = of_terms(senses)
    assert terms["split"]["pvalue"] == terms["three"]["pvalue"] == pytest.approx(1 / 81)
    assert terms["same"]["auroc"] < 0.8
    rare = senses.filter(pl.col("lemma") == "rare")
    assert rare["auroc"].is_null().all()
    assert rare["reason"].is_not_null().all()


def test_two_senses_share_one_probe(probed):
    *_, senses = probed
    one, two = senses.filter(lemma="split").drop_nulls("sense").rows(named=True)
    assert one["auroc"] == pytest.approx(two["auroc"])
    assert one["n_positive"] == two["n_negative"]
    assert one["prevalence"] + two["prevalence"] == pytest.approx(1)


def test_a_term_is_tested_once_whatever_the_number_of_its_senses(probed):
    *_, senses = probed
    tested = senses.filter(pl.col("pvalue").is_not_null())
    assert tested["sense"].is_null().all()
    assert sorted(tested["lemma"]) == ["same", "split", "three"]
    np.testing.assert_allclose(tested["qvalue"], benjamini_hochberg(tested["pvalue"].to_numpy()))
    for lemma, term in of_terms(senses).items():
        own = senses.filter(lemma=lemma).drop_nulls("sense")
        if len(own):
            assert term["auroc"] == pytest.approx(own["auroc"].mean())
            assert term["auroc_null_low"] < term["auroc_null"] < term["auroc_null_high"]


def test_what_is_promising_is_shuffled_until_one_term_alone_could_be_found(probed):
    *_, senses = probed
    terms = of_terms(senses)
    # four terms: 4 / 0.05 shuffles
    assert terms["split"]["n_shuffles"] == 80
    assert terms["split"]["pvalue"] == pytest.approx(1 / 81)
    same = terms["same"]
    assert same["n_shuffles"] == 19 or same["pvalue"] < 0.5


def test_patients_that_all_have_the_same_senses_leave_nothing_to_permute(
    plant, tmp_path, statistics
):
    """Every patient has one occurrence of either sense, in the same order."""
    table = plant({"lemma": "term", "strength": 0.5, "per_patient": (2,), "mixed_patients": 1.0})
    sense = pl.when(pl.int_range(pl.len()).over("patient_id") == 0).then(pl.lit("one"))
    path = tmp_path / "latents.parquet"
    table.with_columns(sense.otherwise(pl.lit("two")).alias("sense")).write_parquet(path)
    linked = find_sense_linked_latents(path, statistics).with_columns(discovered=pl.lit(True))
    linked.head(3).write_csv(tmp_path / "linked.csv")
    single, senses = probe_latents(path, tmp_path / "linked.csv", statistics)
    term = of_terms(senses)["term"]
    assert term["auroc"] is not None
    assert term["pvalue"] is None and term["qvalue"] is None
    assert term["reason"] == NOT_EXCHANGEABLE
    assert single["pvalue"].is_null().all() and single["qvalue"].is_null().all()
    assert (single["reason"] == NOT_EXCHANGEABLE).all() and len(single)


def test_precision_does_not_depend_on_the_order_of_equal_scores():
    truth = np.array([True, False, True, False, False])
    assert precision_at_top(truth, [3.0, 2, 1, 1, 1], 2) == 0.5
    assert precision_at_top(truth, [3.0, 2, 1, 1, 1], 4) == pytest.approx((1 + 2 / 3) / 4)
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 4, 30), rng.random(30) < 0.4
    shuffles = [rng.permutation(30) for _ in range(4000)]
    drawn = [positive[each][np.argsort(-scores[each], kind="stable")[:7]] for each in shuffles]
    assert precision_at_top(positive, scores, 7) == pytest.approx(np.mean(drawn), abs=0.01)


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
        cross_validate(codes, positive.astype(np.int8), 2, np.array([0, 0, 1, 2]), 19, stream(0))
        is None
    )


def null_set(number, n_senses, n_patients=16, n_latents=12):
    rng = np.random.default_rng([number, 41, n_senses])
    patient = np.repeat(np.arange(n_patients), 2)
    label = (rng.permutation(n_patients) % n_senses)[patient].astype(np.int8)
    rate = rng.choice([0.1, 0.8], (n_patients, n_latents))[patient]
    return csr_array((rng.random(rate.shape) < rate).astype(np.float32)), label, patient


def null_pvalues(n_sets, n_senses, monkeypatch):
    monkeypatch.setattr(sense_probes, "N_FOLDS", 2)
    pvalues = []
    for number in range(n_sets):
        codes, label, patient = null_set(number, n_senses)
        result = cross_validate(codes, label, n_senses, patient, 0, stream(number))
        areas = [roc_auc_score(label == s, result.scores[s]) for s in range(n_senses)]
        np.testing.assert_allclose(result.area, areas)
        reaching = 19 - (result.null.mean(0) < np.mean(areas) - 1e-12).sum()
        assert result.pvalue == (1 + reaching) / 20
        pvalues.append(result.pvalue)
    return np.array(pvalues)


@pytest.mark.parametrize("n_senses", [2, 3])
def test_a_term_does_not_exceed_its_level(monkeypatch, n_senses):
    n_sets = 40 if n_senses == 2 else 20
    pvalues = null_pvalues(n_sets, n_senses, monkeypatch)
    assert (pvalues <= 0.05).sum() <= binom.ppf(0.9995, n_sets, 0.05)
    assert 0.3 < pvalues.mean() < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("n_senses", [2, 3])
def test_p_of_a_term_without_effect_is_uniform(monkeypatch, n_senses):
    pvalues = null_pvalues(500, n_senses, monkeypatch)
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
