"""The summary recovers planted ΔCE, and finds nothing where nothing was planted."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from medsae.polysemy.ablation_summary import FEW_OFF, NO_LATENT, summarize_ablation

SENSES = pl.DataFrame({"lemma": ["block"], "sense": ["cardiac"]})


def planted(linked_on=0.0, linked_off=0.0, n_patients=30, patient_sd=0.0, seed=0, off=True):
    """Rows as ``ablate`` gives them; ``patient_sd``: dependence within patients, equal in
    the linked latent and its control."""
    rng = np.random.default_rng(seed)
    rows = []
    occurrence = 0
    for patient in range(n_patients):
        shift = rng.normal(0, patient_sd)
        for _ in range(rng.integers(1, 5)):
            on = bool(rng.random() < 0.6) or not off
            for latent in (1, 2):
                common = {
                    "lemma": "block",
                    "sense": "cardiac",
                    "doc_id": f"d{occurrence}",
                    "patient_id": f"p{patient:02d}",
                    "occurrence_id": occurrence,
                    "on_sense": on,
                }
                effect = linked_on if on else linked_off
                value = effect + shift * rng.normal() + rng.normal(0, 0.01)
                rows.append(
                    {
                        **common,
                        "latent_id": latent,
                        "linked": True,
                        "matched_to": None,
                        "delta_ce": value,
                    }
                )
                value = shift * rng.normal() + rng.normal(0, 0.01)
                rows.append(
                    {
                        **common,
                        "latent_id": 50 + latent,
                        "linked": False,
                        "matched_to": latent,
                        "delta_ce": value,
                    }
                )
            occurrence += 1
    table = pl.DataFrame(rows, schema_overrides={"matched_to": pl.Int64})
    return table, table.filter("linked")


def summary(deltas, pairs, senses=SENSES, n=199):
    return summarize_ablation(deltas, pairs, senses, n, n, seed=0)


def test_planted_effects_are_recovered():
    row = summary(*planted(linked_on=0.05, linked_off=0.01)).row(0, named=True)
    assert row["linked_on"] == pytest.approx(0.05, abs=0.005)
    assert row["random_on"] == pytest.approx(0, abs=0.005)
    assert row["linked_off"] == pytest.approx(0.01, abs=0.005)
    assert row["did"] == pytest.approx(0.04, abs=0.006)
    assert row["did_low"] < 0.04 < row["did_high"]
    assert row["pvalue"] == row["pvalue_contrast"] == pytest.approx(1 / 200)
    assert row["reason"] is None


def test_cells_are_plain_means_and_differences_of_pairs():
    deltas, pairs = planted(linked_on=0.05, patient_sd=0.02, seed=4)
    lost = deltas.filter(~(pl.col("linked").not_() & (pl.col("occurrence_id") % 5 == 0)))
    row = summary(lost, pairs).row(0, named=True)
    linked = lost.filter("linked")
    control = lost.filter(~pl.col("linked"))
    assert row["linked_on"] == pytest.approx(linked.filter("on_sense")["delta_ce"].mean())
    assert row["random_off"] == pytest.approx(
        control.filter(~pl.col("on_sense"))["delta_ce"].mean()
    )
    both = linked.join(
        control, left_on=["occurrence_id", "latent_id"], right_on=["occurrence_id", "matched_to"]
    )
    difference = both.with_columns(d=pl.col("delta_ce") - pl.col("delta_ce_right"))
    on, off = (
        difference.filter(pl.col("on_sense") == value)["d"].mean() for value in (True, False)
    )
    assert row["contrast"] == pytest.approx(on)
    assert row["did"] == pytest.approx(on - off)
    assert row["n_without_control"] == linked.height - both.height


@pytest.mark.parametrize("column", ["pvalue", "pvalue_contrast"])
def test_no_effect_gives_uniform_p_values(column):
    """Patients differ in how strongly anything acts on them; 500 simulated null data sets."""
    tables = [planted(patient_sd=0.05, n_patients=14, seed=seed) for seed in range(500)]
    p = np.array([summary(*each, n=99)[column][0] for each in tables])
    for level in (0.05, 0.2, 0.5):
        low, high = binom.ppf([0.001, 0.999], len(p), level)
        assert low <= (p <= level).sum() <= high


def test_senses_without_latents_or_without_the_other_sense_say_so():
    deltas, pairs = planted(linked_on=0.05, off=False)
    senses = pl.DataFrame({"lemma": ["block", "mass"], "sense": ["cardiac", "radiological"]})
    block, mass = summary(deltas, pairs, senses).iter_rows(named=True)
    assert block["did"] is None and block["reason"] == FEW_OFF
    assert block["contrast"] == pytest.approx(0.05, abs=0.005) and block["qvalue"] is None
    assert mass["reason"] == NO_LATENT and mass["linked_on"] is None and mass["n_latents"] == 0
    nothing = summary(deltas.clear(), pairs.clear(), senses)
    assert nothing["reason"].to_list() == [NO_LATENT, NO_LATENT]


def test_few_patients_get_no_interval():
    row = summary(*planted(linked_on=0.05, n_patients=3)).row(0, named=True)
    assert row["linked_on"] is None and "fewer than" in row["reason"]
    assert row["n_occurrences"] > 0


def test_row_order_does_not_matter():
    deltas, pairs = planted(linked_on=0.02, patient_sd=0.03)
    shuffled = deltas.sample(fraction=1.0, shuffle=True, seed=9)
    assert summary(deltas, pairs).equals(summary(shuffled, pairs))
