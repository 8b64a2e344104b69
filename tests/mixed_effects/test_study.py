"""Planted effects come back; what cannot be estimated says why."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import ttest_1samp

from medsae.io import UserError
from medsae.mixed_effects import (
    bridge,
    delta_ce_table,
    fit_study,
    jaccard_table,
    save_models,
)
from medsae.mixed_effects.data import NO_YES, POLYSEMY, sample_rows
from medsae.mixed_effects.formulas import INTERCEPT, build_formula
from medsae.mixed_effects.specifications import SPECIFICATIONS
from medsae.mixed_effects.study import prepared_rows
from tests.mixed_effects.planted import overlaps_of, tables, write_deltas, write_jaccard

rpy2 = pytest.importorskip("rpy2")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return tables(tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def study(planted):
    return fit_study(planted, seed=0)


def contrast(study, response, term, specification="planned"):
    return study.contrasts.row(
        by_predicate=(pl.col("response") == response)
        & (pl.col("term") == term)
        & (pl.col("specification") == specification),
        named=True,
    )


@pytest.mark.parametrize(
    ("response", "term", "truth"),
    [
        ("jaccard", INTERCEPT, 0.10),
        ("jaccard", "modelbeta", 0.05),
        ("jaccard_at_10", INTERCEPT, 0.05),
        ("entropy", "polysemypolysemous", 0.08),
        ("delta_ce", INTERCEPT, 0.15),
        ("delta_ce_on_sense", INTERCEPT, 0.20),
    ],
)
def test_planted_effects_are_recovered(study, response, term, truth):
    row = contrast(study, response, term)
    standard_error = (row["conf_high"] - row["conf_low"]) / (2 * 1.96)
    assert abs(row["estimate"] - truth) < 3 * standard_error
    assert row["estimate"] == pytest.approx(truth, abs=0.04)
    assert row["qvalue"] < 0.05


def test_models_are_compared_with_the_one_of_random_weights(planted, study):
    turned = fit_study(planted, seed=0, random_models=["beta"])
    row, before = (
        contrast(s, "jaccard", t) for s, t in ((turned, "modelalpha"), (study, "modelbeta"))
    )
    assert row["contrast"] == "same sense − other sense, alpha − beta"
    assert row["estimate"] == pytest.approx(-before["estimate"], abs=1e-6)
    assert contrast(turned, "jaccard", INTERCEPT)["contrast"] == "same sense − other sense, beta"
    row = contrast(turned, "entropy", "polysemypolysemous")
    assert row["contrast"] == "polysemous − control terms, beta"


def test_a_model_is_compared_with_its_own_control(planted, tmp_path):
    models = {"a": 0.10, "b": 0.16, "a-random": 0.02, "b-random": 0.05}
    pairs = [
        write_jaccard(tmp_path / f"{model}.parquet", model, effect, seed)
        for seed, (model, effect) in enumerate(models.items())
    ]
    overlap = overlaps_of(jaccard_table(pairs))
    mean = dict(overlap.group_by("model").agg(pl.col("jaccard").mean()).iter_rows())
    studied = planted | {"overlap": overlap}
    untrained = {"a": "a-random", "b": "b-random"}
    fitted = fit_study(studied, 0, ["a-random", "b-random"], untrained)
    for model, reference in untrained.items():
        row = contrast(fitted, "jaccard", f"model{model}")
        assert row["contrast"] == f"same sense − other sense, {model} − {reference}"
        assert row["estimate"] == pytest.approx(mean[model] - mean[reference], abs=1e-9)
        assert row["conf_low"] < row["estimate"] < row["conf_high"]
    assert "modelb-random" not in fitted.contrasts.filter(specification="planned")["term"]
    assert contrast(fitted, "jaccard", INTERCEPT)["estimate"] == pytest.approx(mean["a-random"])
    # trained models with each other: a t test over terms of what each is above its own
    row = contrast(fitted, "jaccard", "modela - modelb")
    assert row["contrast"] == "same sense − other sense, (a − a-random) − (b − b-random)"
    wide = overlap.pivot("model", index="lemma", values="jaccard").drop("lemma")
    above = (wide["a"] - wide["a-random"]) - (wide["b"] - wide["b-random"])
    truth = ttest_1samp(above.to_numpy(), 0)
    assert row["estimate"] == pytest.approx(above.mean())
    assert row["pvalue"] == pytest.approx(truth.pvalue)
    interval = (row["conf_low"], row["conf_high"])
    assert interval == pytest.approx(tuple(truth.confidence_interval()))


def test_what_distinguishes_ambiguous_terms_is_compared_between_models_too(planted):
    effects = {"a": 0.10, "b": 0.04, "a-random": 0.01, "b-random": 0.02}
    rng = np.random.default_rng(0)
    rows = [
        {"model": model, "layer": "14", "sae": "topk", "lemma": f"l{n}", "polysemy": kind}
        | {"rarefied_normalized": 0.5 + (kind == "polysemous") * effect + rng.normal(0, 0.01)}
        for model, effect in effects.items()
        for n in range(16)
        for kind in [("polysemous", "control")[n % 2]]
    ]
    entropy = pl.DataFrame(rows).with_columns(
        pl.col("polysemy").cast(POLYSEMY), pl.col("rarefied_normalized").alias("normalized_entropy")
    )
    untrained = {"a": "a-random", "b": "b-random"}
    fitted = fit_study(planted | {"entropy": entropy}, 0, list(untrained.values()), untrained)
    row = contrast(fitted, "entropy", "polysemypolysemous:modela - polysemypolysemous:modelb")
    assert row["contrast"] == "polysemous − control terms, (a − a-random) − (b − b-random)"
    means = {
        key: values.mean()
        for key, values in (
            (key, part["rarefied_normalized"])
            for key, part in entropy.group_by("model", pl.col("polysemy").cast(pl.String))
        )
    }
    own = {model: means[model, "polysemous"] - means[model, "control"] for model in effects}
    truth = (own["a"] - own["a-random"]) - (own["b"] - own["b-random"])
    assert row["estimate"] == pytest.approx(truth)
    assert row["conf_low"] < truth < row["conf_high"]


def test_models_without_a_control_of_their_own_are_compared_with_each_other(planted, tmp_path):
    models = {"a": 0.10, "b": 0.16, "c": 0.13}
    pairs = [
        write_jaccard(tmp_path / f"{model}.parquet", model, effect, seed)
        for seed, (model, effect) in enumerate(models.items())
    ]
    fitted = fit_study(planted | {"overlap": overlaps_of(jaccard_table(pairs))}, 0)
    rows = fitted.contrasts.filter(response="jaccard", specification="planned")
    said = set(rows["contrast"].str.split(", ").list.get(1))
    assert said == {"a", "b − a", "c − a", "b − c"}


def test_planned_errors_are_robust_over_terms(study, planted):
    (spec,) = (s for s in SPECIFICATIONS if (s.response, s.specification) == ("jaccard", "planned"))
    formula = build_formula(spec, prepared_rows(spec, planted["overlap"]))
    by_model, robust = (
        bridge.fit(formula.data, formula.text, formula.engine, cluster).coefficients
        for cluster in ("", "lemma")
    )
    row = contrast(study, "jaccard", INTERCEPT)
    own = robust.row(by_predicate=pl.col("term") == INTERCEPT, named=True)
    assert row["pvalue"] == pytest.approx(own["p.value"])
    assert row["conf_low"] == pytest.approx(own["conf.low"])
    assert own["std.error"] != by_model.filter(term=INTERCEPT)["std.error"].item()
    n_terms = formula.data["lemma"].n_unique()
    assert own["df"] == pytest.approx(n_terms - 1, abs=1e-6)


def test_planned_contrasts_do_not_come_from_sampled_pairs(planted, study):
    without = fit_study(planted | {"jaccard": planted["jaccard"].clear()}, seed=0)
    results = (each.contrasts.filter(specification="planned") for each in (without, study))
    assert next(results).equals(next(results))


def test_unaggregated_formulas_recover_the_same_effects_but_are_not_tested(study):
    rows = {name: table.filter(pl.col("specification") == "unaggregated")
            for name, table in study.coefficients.items()}  # fmt: skip
    found = dict(rows["jaccard"].filter(response="jaccard").select("term", "estimate").iter_rows())
    assert found["pair_typewithin"] == pytest.approx(0.10, abs=0.02)
    assert found["pair_typewithin:modelbeta"] == pytest.approx(0.05, abs=0.02)
    found = dict(rows["delta_ce"].select("term", "estimate").iter_rows())
    assert found["linkedyes:on_senseyes"] == pytest.approx(0.15, abs=0.02)
    assert "unaggregated" not in set(study.contrasts["specification"])
    formulas = dict(
        study.fits.filter(specification="unaggregated").select("response", "formula").iter_rows()
    )
    assert formulas == {
        name: f"{name} ~ pair_type * model + (1 + pair_type | lemma) + (1 | doc_a) + (1 | doc_b)"
        for name in ("jaccard", "jaccard_at_10")
    } | {
        "delta_ce": "asinh(delta_ce) ~ linked * on_sense + log(activation) + model + (1 | lemma)"
        " + (1 | latent) + (1 | doc_id)"
    }


def test_no_effect_is_not_found(study):
    assert contrast(study, "entropy", "polysemypolysemous:modelbeta")["pvalue"] > 0.05


def test_published_formulas_are_fitted_beside_the_planned(study):
    published = study.fits.filter(pl.col("specification") == "published")
    formulas = dict(published.select("response", "formula").iter_rows())
    assert formulas["jaccard"] == "jaccard ~ polysemy + context + model + (1 | lemma)"
    assert formulas["delta_ce"] == "delta_ce ~ context + model + (1 | lemma) + (1 | doc_id)"
    assert contrast(study, "jaccard", "contextwithin", "published")["estimate"] > 0
    assert contrast(study, "delta_ce", "contexton sense", "published")["estimate"] > 0
    dropped = dict(published.select("response", "dropped").iter_rows())
    assert dropped["delta_ce"] == "polysemy (constant), layer (constant)"


def test_only_planned_contrasts_are_corrected(study):
    tested = study.contrasts.filter(term=INTERCEPT)
    # a mean is a contrast only where the response is one
    assert set(tested["response"]) == {"jaccard", "jaccard_at_10", "delta_ce", "delta_ce_on_sense"}
    assert set(tested["specification"]) == {"planned"}
    assert not study.contrasts["term"].str.contains("activation").any()
    planned = study.contrasts.filter(pl.col("specification") == "planned").drop_nulls("pvalue")
    p = planned["pvalue"].sort().to_numpy()
    expected = np.minimum.accumulate((p * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1].clip(
        max=1
    )
    np.testing.assert_allclose(planned["qvalue"].sort().to_numpy(), expected)


def test_coefficients_are_tidy(study):
    table = study.coefficients["jaccard"]
    assert {"effect", "group", "term", "std.error", "df", "p.value", "conf.low"} <= set(
        table.columns
    )
    assert set(table["effect"]) == {"fixed", "ran_pars"}
    mine = table.filter(specification="unaggregated", group="lemma")
    assert "cor__(Intercept).pair_typewithin" in set(mine["term"])


def test_every_fit_says_how_it_went(study):
    assert study.fits.height == len(SPECIFICATIONS)
    assert study.fits["converged"].is_not_null().all()
    assert set(study.fits["status"]) <= {"ok", "singular", "not converged"}


def test_models_are_kept_for_r(study, tmp_path):
    path = tmp_path / "model.rds"
    save_models(path, study.models["jaccard"])
    robjects = bridge._r()
    names = list(robjects.r["names"](robjects.r["readRDS"](str(path))))
    assert names == [
        "jaccard planned",
        "jaccard_at_10 planned",
        "jaccard unaggregated",
        "jaccard_at_10 unaggregated",
        "jaccard published",
    ]


def test_degenerate_data_are_not_estimable_with_the_reason(tmp_path):
    data = tables(tmp_path, models=("alpha",))
    data["jaccard"] = data["jaccard"].filter(pl.col("pair_type") == "within")
    data["overlap"] = data["overlap"].clear()
    data["entropy"] = data["entropy"].with_columns(rarefied_normalized=pl.lit(0.5))
    data["delta_ce"] = data["delta_ce"].clear()
    result = fit_study(data, seed=0)
    planned = result.fits.filter(pl.col("specification") == "planned")
    reasons = dict(planned.select("response", "reason").iter_rows())
    assert reasons == {
        "jaccard": "there are no rows",
        "jaccard_at_10": "there are no rows",
        "entropy": "rarefied_normalized does not vary",
        "delta_ce": "there are no rows",
        "delta_ce_on_sense": "there are no rows",
    }
    rest = result.fits.filter(specification="unaggregated")
    assert dict(rest.select("response", "reason").iter_rows()) == {
        "jaccard": "pair_type is always within",
        "jaccard_at_10": "pair_type is always within",
        "delta_ce": "there are no rows",
    }
    assert set(planned["status"]) == {"not estimable"}
    row = result.coefficients["delta_ce"].row(0, named=True)
    assert (row["status"], row["reason"], row["term"]) == (
        "not estimable",
        "there are no rows",
        None,
    )
    assert result.contrasts.filter(pl.col("specification") == "planned").is_empty()
    path = tmp_path / "model.rds"
    save_models(path, result.models["delta_ce"])
    kept = bridge._r().r["readRDS"](str(path)).rx2("delta_ce planned")
    assert kept.rx2("reason")[0] == "there are no rows"


def test_what_r_refuses_is_not_estimable():
    """As many latents as rows: R says so, and the reason is R's."""
    table = pl.DataFrame({"y": [0.1, 0.5, 0.3], "latent": ["a", "b", "c"]})
    result = bridge.fit(table, "y ~ 1 + (1 | latent)", "lmer")
    assert "number of levels" in result.reason
    assert result.coefficients.is_empty()


def test_a_singular_fit_says_so():
    rng = np.random.default_rng(3)
    table = pl.DataFrame({"y": rng.normal(size=60), "lemma": ["a", "b", "c"] * 20})
    centred = table.with_columns(pl.col("y") - pl.col("y").mean().over("lemma"))
    result = bridge.fit(centred, "y ~ 1 + (1 | lemma)", "lmer")
    assert result.singular and not result.reason


@pytest.mark.parametrize("engine", ["beta", "gamma"])
def test_a_generalized_fit_without_variance_between_terms_is_singular(engine):
    # the same values in every term
    rng = np.random.default_rng(0)
    values = rng.beta(5, 5, 10) if engine == "beta" else rng.gamma(3, 1, 10)
    table = pl.DataFrame({"y": np.tile(values, 6), "lemma": np.repeat(list("abcdef"), 10)})
    result = bridge.fit(table, "y ~ 1 + (1 | lemma)", engine)
    assert result.singular is True and result.converged is True


def test_a_fit_that_does_not_converge_says_so():
    rng = np.random.default_rng(0)
    lemma, x = np.repeat(np.arange(20), 10), rng.normal(size=200)
    y = rng.normal(size=200) + rng.normal(size=20)[lemma] + 2 * x * rng.normal(size=20)[lemma]
    # slopes in units of 1/10,000: the optimiser stops with a gradient that is far from zero
    for scale, converged in ((1, True), (10_000, False)):
        table = pl.DataFrame({"y": y, "x": scale * (x + 1), "lemma": [f"l{i}" for i in lemma]})
        result = bridge.fit(table, "y ~ x + (1 + x | lemma)", "lmer")
        assert result.converged is converged and result.singular is False
        assert ("failed to converge" in result.messages) is not converged


def test_a_generalized_fit_that_does_not_converge_says_so():
    # y does not vary, so the likelihood has no maximum
    table = pl.DataFrame({"y": [0.5] * 60, "lemma": list("abcdef") * 10})
    result = bridge.fit(table, "y ~ 1 + (1 | lemma)", "gamma")
    assert result.converged is False and "convergence problem" in result.messages


def test_results_do_not_depend_on_row_order(tmp_path):
    data = tables(tmp_path, models=("alpha",))
    one = fit_study(data, seed=0)
    two = fit_study({n: t.sample(fraction=1.0, shuffle=True, seed=4) for n, t in data.items()}, 0)
    assert one.contrasts.equals(two.contrasts)
    assert one.coefficients["delta_ce"].equals(two.coefficients["delta_ce"])


def test_large_tables_are_sampled(monkeypatch):
    monkeypatch.setattr("medsae.mixed_effects.data.MAX_ROWS", 10)
    table = pl.DataFrame({"x": range(100)})
    drawn = sample_rows(table, 0, "jaccard")
    assert drawn.height == 10
    assert drawn.equals(sample_rows(table.reverse(), 0, "jaccard"))


def test_an_empty_ablation_table_is_read(tmp_path):
    path = write_deltas(tmp_path / "d.csv", "alpha", 0.1)
    header = path.read_text().splitlines()[0]
    path.write_text(header + "\n")
    table = delta_ce_table([path])
    assert table.is_empty() and table["linked"].dtype == NO_YES


def test_a_missing_package_is_told_with_its_remedy(monkeypatch):
    monkeypatch.setitem(bridge.R_PACKAGES, "notapackage", "r-cran-notapackage")
    bridge._r.cache_clear()
    with pytest.raises(UserError, match=r"apt-get install .* r-cran-notapackage"):
        bridge._r()
    bridge._r.cache_clear()
