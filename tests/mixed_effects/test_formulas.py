"""Formulas leave out what the data cannot tell apart, and layers find their place in them."""

import numpy as np
import polars as pl
import pytest

from medsae.mixed_effects import bridge
from medsae.mixed_effects.formulas import INTERCEPT, build_formula
from medsae.mixed_effects.specifications import SPECIFICATIONS
from medsae.mixed_effects.study import prepared_rows
from tests.mixed_effects.planted import overlaps_of, tables

pytest.importorskip("rpy2")


def formula_of(pairs, specification, response="jaccard"):
    (spec,) = (
        s for s in SPECIFICATIONS if (s.response, s.specification) == (response, specification)
    )
    table = overlaps_of(pairs) if spec.table == "overlap" else pairs
    return build_formula(spec, prepared_rows(spec, table))


def test_constant_terms_are_dropped_and_named(tmp_path):
    only = tables(tmp_path, models=("alpha",))["jaccard"]
    formula = formula_of(only, "unaggregated")
    assert formula.text == (
        "jaccard ~ pair_type + (1 + pair_type | lemma) + (1 | doc_a) + (1 | doc_b)"
    )
    assert formula.dropped == "model (constant), layer (constant), sae (constant)"
    # a term once: no random effect is needed, and that is said
    planned = formula_of(only, "planned")
    assert (planned.text, planned.engine) == ("delta ~ 1", "lm")
    assert "(1 | lemma) (each level is a row)" in planned.dropped
    assert "(1 | lemma_model) (each level is a row)" in planned.dropped


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
        assert formula.dropped.startswith(
            "layer (follows from the terms before it), sae (constant)"
        )
        assert not formula.note


def test_layers_that_models_share_are_a_factor_of_one_model_or_without_a_test(tmp_path):
    table = with_layers(tables(tmp_path)["jaccard"], {"alpha": ["6", "9"], "beta": ["6", "9"]})
    one = formula_of(table.filter(model="alpha"), "planned")
    assert one.text == "delta ~ layer + (1 | lemma)"
    assert one.layers == {"layer9": "layer 9 − 6"} and not one.note
    assert "layer + " in formula_of(table, "unaggregated").text
    both = formula_of(table, "planned")  # else it would be the layer of both on average
    assert both.layers == {
        "layer_9_of_alpha": "layer 9 − 6, alpha",
        "layer_9_of_beta": "layer 9 − 6, beta",
    }


def test_a_model_of_few_terms_is_left_out_and_named(tmp_path):
    pairs = tables(tmp_path)["jaccard"]
    few = pl.col("lemma").is_in(["l0", "l1"]) | (pl.col("model") != "beta")
    formula = formula_of(pairs.filter(few), "planned")
    assert formula.dropped.startswith("beta (fewer than 3 terms), model (constant)")
    assert formula.data["model"].unique().to_list() == ["alpha"]
    # where all have few, the number of terms decides
    fewer = formula_of(pairs.filter(pl.col("lemma").is_in(["l0", "l1"])), "planned")
    assert fewer.reason == "2 terms, fewer than 3"


def test_a_layer_of_few_terms_is_left_out_and_named(tmp_path):
    layers = {"alpha": ["6", "9"], "beta": ["6", "9"]}
    table = with_layers(tables(tmp_path)["jaccard"], layers)
    few = pl.col("lemma").is_in(["l0", "l1"]) | (pl.col("model") != "beta")
    formula = formula_of(table.filter(few | (pl.col("layer") == "6")), "planned")
    assert formula.dropped.startswith("beta layer 9 topk (fewer than 3 terms)")
    assert list(formula.layers) == ["layer_9_of_alpha"]


def test_kinds_of_terms_are_not_compared_where_one_has_few(tmp_path):
    # one term of a kind is fitted exactly: robust errors would take its contrast for certain
    entropy = tables(tmp_path)["entropy"]
    some = entropy.filter(polysemy="control")["lemma"].unique().sort()[:2]
    one = (pl.col("polysemy") == "polysemous") | (pl.col("lemma") == some[0])
    formula = formula_of(entropy.filter(one), "planned", "entropy")
    assert formula.reason == "1 control terms, fewer than 3"
    of_beta = entropy.filter(one | (pl.col("model") == "alpha"))
    formula = formula_of(of_beta, "planned", "entropy")
    assert formula.dropped.startswith("beta (fewer than 3 terms)") and not formula.reason


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
    assert formula.layers == {
        "layer_20_of_alpha": "layer 20 − 10, alpha",
        "layer_16_of_beta": "layer 16 − 8, beta",
    }
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
