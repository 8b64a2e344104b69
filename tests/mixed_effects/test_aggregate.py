"""What the planned tests are about: one number per term, model, layer and SAE."""

import numpy as np
import polars as pl
import pytest

from medsae.mixed_effects.aggregate import lemma_ablations, lemma_entropies, lemma_overlaps
from tests.mixed_effects.null_studies import null_deltas

PLACE = {"model": "m", "layer": "1", "sae": "s"}


def literals(values):
    return {name: pl.lit(value) for name, value in values.items()}


def test_the_overlap_of_a_term_is_of_the_latents_asked_for():
    overlaps = pl.DataFrame(
        {"lemma": ["b", "a"], "jaccard": [0.1, 0.2], "jaccard_at_10": [None, 0.4]}
    ).with_columns(**literals(PLACE))
    names = ("lemma", "lemma_model", "delta")
    assert lemma_overlaps(overlaps, "jaccard").select(names).rows() == [
        ("a", "a/m", 0.2),
        ("b", "b/m", 0.1),
    ]
    # a term without Δ has no row
    assert lemma_overlaps(overlaps, "jaccard_at_10").select(names).rows() == [("a", "a/m", 0.4)]


def test_the_entropy_of_a_term_is_the_mean_over_its_senses():
    senses = pl.DataFrame({"lemma": ["a", "a", "b"], "rarefied_normalized": [0.2, 0.4, 0.6]})
    senses = senses.with_columns(
        polysemy=pl.Series(["polysemous", "polysemous", "control"]), **literals(PLACE)
    )
    means = lemma_entropies(senses, "rarefied_normalized")["rarefied_normalized"]
    assert means.to_list() == [pytest.approx(0.3), pytest.approx(0.6)]


def ablations(cells, **columns):
    """Rows of a latent "1" and its control "9": y by (linked, on_sense), each cell twice."""
    rows = [
        {"lemma": "a", "sense": "s", "linked": linked, "on_sense": on}
        | {"delta_ce": np.sinh(y + shift), "activation": np.exp(10 * y)}
        | {"latent_id": "1" if linked == "yes" else "9"}
        | {"matched_to": None if linked == "yes" else "1"}
        for (linked, on), y in cells.items()
        for shift in (-0.01, 0.01)
    ]
    schema = {"matched_to": pl.String}
    return pl.DataFrame(rows, schema_overrides=schema).with_columns(**literals(PLACE | columns))


CELLS = {("yes", "yes"): 0.5, ("no", "yes"): 0.1, ("yes", "no"): 0.2, ("no", "no"): 0.15}


def test_ablation_is_a_difference_in_differences():
    deltas = ablations(CELLS)
    did = lemma_ablations(deltas, "did").row(0, named=True)
    assert did["did"] == pytest.approx(0.4 - 0.05)
    assert did["log_activation"] == pytest.approx(10 * 0.35)
    assert lemma_ablations(deltas, "on_sense")["on_sense"][0] == pytest.approx(0.4)
    # without an occurrence of another sense there is no difference in differences
    assert lemma_ablations(deltas.filter(on_sense="yes"), "did").is_empty()


def test_the_same_latent_of_two_senses_is_compared_within_each():
    other = {**CELLS, ("yes", "no"): 0.1}
    both = pl.concat([ablations(CELLS), ablations(other, sense="t")])
    assert lemma_ablations(both, "did")["did"].to_list() == [pytest.approx((0.35 + 0.45) / 2)]


def test_a_latent_without_controls_takes_no_part():
    alone = ablations({("yes", "yes"): 5.0, ("yes", "no"): 1.0}, latent_id="2")
    deltas = ablations(CELLS)
    for name in ("did", "on_sense"):
        assert lemma_ablations(pl.concat([deltas, alone]), name).equals(
            lemma_ablations(deltas, name)
        )


def test_did_is_the_coefficient_of_a_regression_with_latents():
    deltas = null_deltas(0).filter(lemma="l00")
    linked, control = (deltas.filter(linked=which) for which in ("yes", "no"))
    # the n-th row of a control belongs to the n-th row of its linked latent
    d = np.arcsinh(linked["delta_ce"].to_numpy()) - np.arcsinh(control["delta_ce"].to_numpy())
    dummies = linked.select("latent_id").to_dummies().to_numpy()
    design = np.column_stack([(linked["on_sense"] == "yes").to_numpy(), dummies]).astype(float)
    expected = np.linalg.lstsq(design, d, rcond=None)[0][0]
    assert lemma_ablations(deltas, "did")["did"].to_list() == [pytest.approx(expected)]


def test_which_latent_fires_where_is_no_effect_of_the_sense():
    """The costly latents fire where their own sense is meant; no sense matters."""
    means, plain = [], []
    for number in range(40):
        deltas = null_deltas(number)
        means.append(lemma_ablations(deltas, "did")["did"].mean())
        y = pl.col("delta_ce").arcsinh()
        cell = {
            (linked, on): deltas.filter(linked=linked, on_sense=on).select(y.mean()).item()
            for linked in ("yes", "no")
            for on in ("yes", "no")
        }
        plain.append(
            (cell["yes", "yes"] - cell["no", "yes"]) - (cell["yes", "no"] - cell["no", "no"])
        )
    assert np.mean(plain) > 0.02 > 4 * abs(np.mean(means))
    error = np.std(means, ddof=1) / np.sqrt(len(means))
    assert abs(np.mean(means)) < 3.5 * error
