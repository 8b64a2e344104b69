"""Planted effects come back; what cannot be estimated says why."""

import numpy as np
import polars as pl
import pytest

from medsae.io import UserError
from medsae.mixed_effects import (
    bridge,
    delta_ce_table,
    entropy_table,
    fit_study,
    jaccard_table,
    save_models,
)
from medsae.mixed_effects.data import NO_YES, sample_rows
from medsae.mixed_effects.formulas import INTERCEPT, build_formula
from medsae.mixed_effects.specifications import SPECIFICATIONS
from medsae.mixed_effects.study import prepared_rows

rpy2 = pytest.importorskip("rpy2")

MODELS = ("alpha", "beta")


def write_jaccard(path, model, effect, seed=0, n_lemmas=12, per=60):
    """Overlap = 0.3 + effect[model] within senses + lemma + notes + noise; controls have none."""
    rng = np.random.default_rng(seed)
    docs = {f"d{i}": x for i, x in enumerate(rng.normal(0, 0.02, 80))}
    names = list(docs)
    rows = []
    for index in range(n_lemmas):
        polysemous = index < n_lemmas - 4
        lemma, slope = rng.normal(0, 0.04), rng.normal(0, 0.01)
        for pair_type in ("within", "cross"):
            for _ in range(per):
                a, b = rng.choice(names, 2, replace=False)
                y = 0.3 + lemma + docs[a] + docs[b] + rng.normal(0, 0.03)
                if polysemous and pair_type == "within":
                    y += effect + slope
                rows.append(
                    {
                        "model": model,
                        "layer": 14,
                        "sae": "topk",
                        "lemma": f"l{index}",
                        "kind": "polysemous" if polysemous else "control",
                        "pair_type": pair_type,
                        "sense_a": "one",
                        "sense_b": "one" if pair_type == "within" else "two",
                        "jaccard_at_10": min(max(y, 0.0), 1.0),
                        "jaccard": min(max(y, 0.0), 1.0),
                        "doc_a": a,
                        "doc_b": b,
                        "patient_a": a,
                        "patient_b": b,
                    }
                )
    pl.DataFrame(rows).write_parquet(path)
    return path


def write_entropy(path, model, difference, seed=1, n_lemmas=24):
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(n_lemmas):
        kind = "polysemous" if index % 2 else "control"
        lemma = rng.normal(0, 0.02)
        for sense in ("a", "b") if kind == "polysemous" else (None,):
            y = 0.5 + lemma + (difference if kind == "polysemous" else 0) + rng.normal(0, 0.02)
            rows.append(
                {
                    "lemma": f"l{index}",
                    "sense": sense,
                    "normalized_entropy": y,
                    "rarefied_normalized": y,
                    "kind": kind,
                    "layer": 14,
                    "model": model,
                    "sae": "topk",
                }
            )
    pl.DataFrame(rows).write_csv(path)
    return path


def write_deltas(path, model, did, seed=2, n_lemmas=8):
    """asinh ΔCE = 0.1 + 0.05 linked + did · linked · on + 0.02 ln activation + lemma + noise."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(n_lemmas):
        lemma = rng.normal(0, 0.02)
        for latent in range(6):
            effect = rng.normal(0, 0.02)
            for occurrence in range(12):
                on, linked = occurrence % 2 == 0, latent % 2 == 0
                activation = float(rng.lognormal())
                mean = 0.1 + 0.05 * linked + did * linked * on + 0.02 * np.log(activation)
                rows.append(
                    {
                        "lemma": f"l{index}",
                        "sense": "a",
                        "latent_id": 100 * index + latent,
                        "doc_id": f"d{rng.integers(40)}",
                        "batch_idx": 0,
                        "delta_ce": float(np.sinh(mean + lemma + effect + rng.normal(0, 0.03))),
                        "on_sense": on,
                        "linked": linked,
                        "matched_to": None if linked else 100 * index + latent - 1,
                        "activation": activation,
                        "layer": 14,
                        "model": model,
                        "sae": "topk",
                    }
                )
    pl.DataFrame(rows).write_csv(path)
    return path


def tables(folder, models=MODELS, shift=0.0):
    pairs, entropy, deltas = [], [], []
    for number, model in enumerate(models):
        pairs.append(
            write_jaccard(
                folder / f"j{number}.parquet", model, 0.10 + 0.05 * number + shift, number
            )
        )
        entropy.append(write_entropy(folder / f"e{number}.csv", model, 0.08, 10 + number))
        deltas.append(write_deltas(folder / f"d{number}.csv", model, 0.15, 20 + number))
    return {
        "jaccard": jaccard_table(pairs),
        "entropy": entropy_table(entropy),
        "delta_ce": delta_ce_table(deltas),
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return fit_study(tables(tmp_path_factory.mktemp("two")), seed=0)


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
        ("jaccard_at_10", INTERCEPT, 0.10),
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


def formula_of(table, specification, response="jaccard"):
    (spec,) = (
        s for s in SPECIFICATIONS if (s.response, s.specification) == (response, specification)
    )
    return build_formula(spec, prepared_rows(spec, table))


def test_constant_terms_are_dropped_and_named(tmp_path):
    only = tables(tmp_path, models=("alpha",))["jaccard"]
    formula = formula_of(only, "unaggregated")
    assert formula.text == (
        "jaccard ~ pair_type + (1 + pair_type | lemma) + (1 | doc_a) + (1 | doc_b)"
    )
    assert formula.dropped == "model (constant), layer (constant), sae (constant)"
    # a term once: no random effect is needed
    planned = formula_of(only, "planned")
    assert (planned.text, planned.engine) == ("delta ~ 1", "lm")


def with_layers(table, layers):
    """``table`` once for each of the layers of each model."""
    parts = [
        table.filter(model=model).with_columns(layer=pl.lit(layer))
        for model, of_model in layers.items()
        for layer in of_model
    ]
    return pl.concat(parts)


def test_a_layer_that_follows_from_the_model_is_dropped_with_the_reason(tmp_path):
    table = with_layers(tables(tmp_path)["jaccard"], {"alpha": ["6"], "beta": ["9"]})
    for specification in ("planned", "unaggregated"):
        formula = formula_of(table, specification)
        assert "model" in formula.text and "layer" not in formula.text
        assert formula.dropped == "layer (follows from the terms before it), sae (constant)"
        assert not formula.note


def test_layers_that_models_share_are_a_factor(tmp_path):
    table = with_layers(tables(tmp_path)["jaccard"], {"alpha": ["6", "9"], "beta": ["6", "9"]})
    formula = formula_of(table, "planned")
    assert formula.text == "delta ~ model + layer + (1 | lemma) + (1 | lemma_model)"
    assert not formula.note


def test_layers_that_models_do_not_share_are_nested_in_them(tmp_path):
    table = tables(tmp_path)["jaccard"]
    table = with_layers(table, {"alpha": ["10", "20"], "beta": ["8", "16"]})
    effect = pl.when(layer="20").then(0.04).when(layer="16").then(-0.02).otherwise(0.0)
    inside = pl.when(pair_type="within").then(effect).otherwise(0.0)
    noise = np.random.default_rng(0).normal(0, 0.01, table.height)
    table = table.with_columns(pl.col("jaccard") + inside + noise)
    formula = formula_of(table, "planned")
    assert formula.text == (
        "delta ~ model + layer_20_of_alpha + layer_16_of_beta + (1 | lemma) + (1 | lemma_model)"
    )
    assert formula.dropped == "sae (constant)" and "nested" in formula.note
    found = bridge.fit(formula.data, formula.text, formula.engine).coefficients
    found = dict(found.filter(effect="fixed").select("term", "estimate").iter_rows())
    assert found["layer_20_of_alpha"] == pytest.approx(0.04, abs=0.003)
    assert found["layer_16_of_beta"] == pytest.approx(-0.02, abs=0.003)
    # models on average over their own layers: half of each layer's effect is in it
    whole = table.group_by("lemma", "model", "pair_type").agg(pl.col("jaccard").mean())
    wide = whole.filter(pl.col("lemma").is_in([f"l{i}" for i in range(8)])).pivot(
        "pair_type", index=["lemma", "model"], values="jaccard"
    )
    means = dict(
        wide.group_by("model").agg((pl.col("within") - pl.col("cross")).mean()).iter_rows()
    )
    assert found[INTERCEPT] == pytest.approx(means["alpha"], abs=1e-6)
    assert found["modelbeta"] == pytest.approx(means["beta"] - means["alpha"], abs=1e-6)
    for specification in ("unaggregated", "published"):
        assert "layer_16_of_beta" in formula_of(table, specification).text


def test_degenerate_data_are_not_estimable_with_the_reason(tmp_path):
    data = tables(tmp_path, models=("alpha",))
    data["jaccard"] = data["jaccard"].filter(pl.col("pair_type") == "within")
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
