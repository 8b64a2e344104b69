"""The summary recovers planted ΔCE, and finds nothing where nothing was planted."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from medsae.polysemy.ablation_summary import (
    ALL_TERMS,
    FEW_OFF,
    NO_LATENT,
    NOTHING_CHANGES,
    summarize_ablation,
    within_latents,
)
from medsae.statistics import cluster_ratios

SENSES = pl.DataFrame({"lemma": ["block"], "sense": ["cardiac"]})


SIZES = (0.08, 0.0, 0.03)
FIRES_ON = (0.9, 0.5, 0.7)
FIRES_OFF = (0.15, 0.6, 0.3)
"""What removing each latent costs whatever is meant, and how often it fires where. The costly
ones fire where their own sense is meant, as linked latents do."""


def planted(
    sense_effect=0.0,
    n_patients=30,
    patient_sd=0.0,
    seed=0,
    off=True,
    sizes=SIZES,
    latent_patient_sd=0.0,
    lemma="block",
):
    """Rows as ``ablate`` gives them. ``sense_effect``: what a linked latent's removal costs more
    where its own sense is meant; ``patient_sd``: what a patient's rows have in common."""
    rng = np.random.default_rng(seed)
    rows = []
    occurrence = 0
    for patient in range(n_patients):
        shift = rng.normal(0, patient_sd)
        own = rng.normal(0, latent_patient_sd, len(sizes))
        main = rng.random() < 0.6
        for _ in range(rng.integers(1, 5)):
            on = (main if rng.random() < 0.8 else not main) or not off
            for latent, size in enumerate(sizes):
                if rng.random() > (FIRES_ON if on else FIRES_OFF)[latent]:
                    continue
                common = {
                    "lemma": lemma,
                    "sense": "cardiac",
                    "doc_id": f"d{occurrence}",
                    "patient_id": f"p{patient:02d}",
                    "occurrence_id": occurrence,
                    "on_sense": on,
                }
                effect = size + sense_effect * on + shift + own[latent]
                rows.append(
                    {
                        **common,
                        "latent_id": latent,
                        "linked": True,
                        "matched_to": None,
                        "delta_ce": effect + rng.normal(0, 0.01),
                        "activation": 3.0,
                    }
                )
                rows.append(
                    {
                        **common,
                        "latent_id": 50 + latent,
                        "linked": False,
                        "matched_to": latent,
                        "delta_ce": rng.normal(0, 0.01),
                        "activation": 2.0 if on else 4.0,
                    }
                )
            occurrence += 1
    table = pl.DataFrame(rows, schema_overrides={"matched_to": pl.Int64})
    return table, table.filter("linked")


def summary(deltas, pairs, senses=SENSES, n=199):
    return summarize_ablation(deltas, pairs, senses, n, seed=0)


def of_the_sense(*planted_tables, n=199):
    return summary(*planted_tables, n=n).row(0, named=True)


def test_planted_effects_are_recovered():
    row = of_the_sense(*planted(sense_effect=0.04), n=999)
    assert row["random_on"] == pytest.approx(0, abs=0.005)
    assert row["did"] == pytest.approx(0.04, abs=0.008)
    assert row["did_low"] < 0.04 < row["did_high"]
    assert row["contrast_low"] > 0
    assert row["pvalue"] == row["pvalue_contrast"] == pytest.approx(1 / 1000)
    assert row["n_latents_compared"] == 3
    assert row["reason"] is None
    assert row["activation_ratio_on"] == pytest.approx(1.5)
    assert row["activation_ratio_off"] == pytest.approx(0.75)


def test_the_estimate_is_the_coefficient_of_a_regression_with_latents():
    deltas, pairs = planted(sense_effect=0.05, patient_sd=0.02, seed=4)
    lost = deltas.filter(~(pl.col("linked").not_() & (pl.col("occurrence_id") % 5 == 0)))
    row = of_the_sense(lost, pairs)
    linked = lost.filter("linked")
    control = lost.filter(~pl.col("linked"))
    assert row["linked_on"] == pytest.approx(linked.filter("on_sense")["delta_ce"].mean())
    assert row["random_off"] == pytest.approx(
        control.filter(~pl.col("on_sense"))["delta_ce"].mean()
    )
    both = linked.join(
        control, left_on=["occurrence_id", "latent_id"], right_on=["occurrence_id", "matched_to"]
    ).with_columns(d=pl.col("delta_ce") - pl.col("delta_ce_right"))
    assert row["contrast"] == pytest.approx(both.filter("on_sense")["d"].mean())
    dummies = (both["latent_id"].to_numpy()[:, None] == [0, 1, 2]).astype(float)
    design = np.column_stack([both["on_sense"].to_numpy().astype(float), dummies])
    coefficients = np.linalg.lstsq(design, both["d"].to_numpy(), rcond=None)[0]
    assert row["did"] == pytest.approx(coefficients[0])
    assert row["n_without_control"] == linked.height - both.height


def test_stronger_firing_alone_makes_a_difference_and_is_told():
    """ΔCE proportional to activation, whatever is meant; 1.35 times the activation at own sense.

    Latents differ in strength, and the strong ones fire at their own sense, so the plain ratio of
    the two sides is another number.
    """
    deltas, pairs = planted(sizes=(0.0, 0.0, 0.0), n_patients=60)
    rng = np.random.default_rng(3)
    base = pl.col("latent_id").replace_strict({0: 4.0, 1: 1.0, 2: 2.0}, default=None)
    strength = base * pl.when("on_sense").then(1.35).otherwise(1.0)
    noise = pl.Series(np.exp(rng.normal(0, 0.2, deltas.height)))
    linked = pl.col("linked")
    deltas = deltas.with_columns(
        activation=pl.when(linked).then(strength * noise).otherwise("activation")
    ).with_columns(
        delta_ce=pl.when(linked).then(0.02 * pl.col("activation")).otherwise("delta_ce"),
    )
    sides = deltas.filter(linked).with_columns(pl.col("activation").log())
    plain = np.exp(
        sides.filter("on_sense")["activation"].mean()
        - sides.filter(~pl.col("on_sense"))["activation"].mean()
    )
    row = of_the_sense(deltas, pairs)
    assert row["did_low"] > 0 and row["pvalue"] < 0.01
    assert row["activation_on_over_off"] == pytest.approx(1.35, rel=0.06) and plain > 1.6
    assert 1.2 < row["activation_on_over_off_low"] < 1.35 < row["activation_on_over_off_high"]
    whole = summary(deltas, pairs).filter(lemma=ALL_TERMS).row(0, named=True)
    assert whole["activation_on_over_off"] == pytest.approx(row["activation_on_over_off"])
    # latents that fire as strongly everywhere
    assert of_the_sense(*planted(sense_effect=0.04))["activation_on_over_off"] == pytest.approx(1)


def test_smallest_q_is_reached_if_all_patients_agree():
    """Of two senses, with 7 and 30 patients: p of all signs alike, times the two tests."""
    tables = [planted(n_patients=7, off=False), planted(seed=1, lemma="mass")]
    deltas, pairs = (pl.concat(each) for each in zip(*tables, strict=True))
    senses = pl.DataFrame({"lemma": ["block", "mass"], "sense": ["cardiac"] * 2})
    block, mass, whole = summary(deltas, pairs, senses).iter_rows(named=True)
    assert block["n_patients_on"] == 7
    assert block["smallest_q_contrast"] == 2 / 2**7 and block["smallest_q"] is None
    assert mass["smallest_q_contrast"] == 2 / 200 and mass["smallest_q"] == 1 / 200
    assert whole["smallest_q"] is None and whole["smallest_q_contrast"] is None
    agreed = deltas.with_columns(delta_ce=pl.col("linked").cast(pl.Float64))
    block = summary(agreed, pairs, senses).row(0, named=True)
    assert block["pvalue_contrast"] * 2 == block["smallest_q_contrast"]


def test_latents_that_fire_on_one_side_only_are_not_compared():
    deltas, pairs = planted(sense_effect=0.04)
    one_sided = deltas.filter(~((pl.col("latent_id") % 50 == 0) & ~pl.col("on_sense")))
    row, alone = (
        of_the_sense(one_sided, pairs),
        of_the_sense(*(table.filter(pl.col("latent_id") % 50 != 0) for table in (deltas, pairs))),
    )
    assert row["n_latents_compared"] == 2
    assert row["did"] == pytest.approx(alone["did"])


def planted_differences(seed, patient_sd, latent_patient_sd, sense_effect=0.0, n_patients=16):
    """The same plan as arrays: difference, on, latent, patient of every row."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(n_patients):
        shift, main = rng.normal(0, patient_sd), rng.random() < 0.6
        own = shift + rng.normal(0, latent_patient_sd, len(SIZES))
        for _ in range(rng.integers(1, 5)):
            on = main if rng.random() < 0.8 else not main
            fires = rng.random(len(SIZES)) < (FIRES_ON if on else FIRES_OFF)
            noise = rng.normal(0, 0.01, len(SIZES))
            values = np.array(SIZES) + sense_effect * on + own + noise
            rows += [(values[latent], on, latent, patient) for latent in np.flatnonzero(fires)]
    difference, on, latent, patient = map(np.array, zip(*rows, strict=True))
    return difference, on.astype(bool), latent.astype(int), patient.astype(int)


@pytest.mark.parametrize(
    ("patient_sd", "latent_patient_sd"),
    [(0.05, 0.0), (0.0, 0.05)],
    ids=["patients differ", "latents differ by patient"],
)
def test_which_latent_fires_where_is_no_effect_of_the_sense(patient_sd, latent_patient_sd):
    """500 null data sets: latents cost and fire as they do, but no sense matters.

    The plain difference of means is far from zero in the mean; the estimate is not, its p is
    uniform and its interval covers zero at its level.
    """
    naive, did, pvalues, covered = [], [], [], 0
    for seed in range(500):
        difference, on, latent, patient = planted_differences(seed, patient_sd, latent_patient_sd)
        scores = within_latents(difference, on, latent, patient, 16)
        assert min(scores.n_patients_on, scores.n_patients_off) > 2
        ratios = cluster_ratios(
            scores.numerator[None], scores.denominator[None], 199, np.random.default_rng(seed)
        )
        naive.append(difference[on].mean() - difference[~on].mean())
        did.append(ratios.value[0])
        pvalues.append(ratios.pvalue[0])
        covered += ratios.low[0] <= 0 <= ratios.high[0]
    assert np.mean(naive) > 0.02 > 10 * abs(np.mean(did))
    low, high = binom.ppf([0.0005, 0.9995], 500, 0.95)
    assert low <= covered <= high
    for level in (0.05, 0.2, 0.5):
        low, high = binom.ppf([0.0005, 0.9995], 500, level)
        assert low <= (np.array(pvalues) <= level).sum() <= high


@pytest.mark.parametrize("tails", ["normal", "lognormal"])
def test_linked_latents_that_cost_what_their_controls_cost_are_not_found(tails):
    """500 null sets: a latent and its control cost alike, and so do a patient's occurrences.

    However skewed the costs are, a difference of two alike is symmetric.
    """
    pvalues = []
    for seed in range(500):
        rng = np.random.default_rng(seed)
        patient = np.repeat(np.arange(16), rng.integers(1, 5, 16))
        costs = rng.normal(0, 0.05, (2, 16)) if tails == "normal" else rng.lognormal(-3, 1, (2, 16))
        shared = costs[:, patient]
        linked, control = 0.1 + shared + rng.normal(0, 0.02, shared.shape)
        sums, counts = np.bincount(patient, linked - control), np.bincount(patient)
        found = cluster_ratios(sums[None], counts[None].astype(float), 199, rng)
        pvalues.append(found.pvalue[0])
    for level in (0.05, 0.2, 0.5):
        low, high = binom.ppf([0.0005, 0.9995], 500, level)
        assert low <= (np.array(pvalues) <= level).sum() <= high


def test_an_effect_of_the_sense_is_found_beside_all_this():
    found, covered = 0, 0
    for seed in range(100):
        data = planted_differences(seed, 0.02, 0.0, sense_effect=0.05)
        scores = within_latents(*data, 16)
        ratios = cluster_ratios(
            scores.numerator[None], scores.denominator[None], 199, np.random.default_rng(seed)
        )
        found += ratios.pvalue[0] <= 0.05
        covered += ratios.low[0] <= 0.05 <= ratios.high[0]
    assert found >= 95 and covered >= binom.ppf(0.001, 100, 0.95)


def test_one_row_is_over_all_terms():
    tables = [planted(0.04, seed=1), planted(0.04, seed=2, lemma="mass", sizes=(0.5, 0.3, 0.1))]
    deltas, pairs = (pl.concat(each) for each in zip(*tables, strict=True))
    senses = pl.DataFrame({"lemma": ["block", "mass"], "sense": ["cardiac"] * 2})
    block, mass, whole = summary(deltas, pairs, senses).iter_rows(named=True)
    assert whole["lemma"] == ALL_TERMS and whole["sense"] is None and whole["qvalue"] is None
    assert whole["n_latents"] == whole["n_latents_compared"] == 6
    # latents of one number belong to different terms: they are not one latent
    assert whole["did"] == pytest.approx(0.04, abs=0.008)
    assert whole["did_low"] < 0.04 < whole["did_high"]
    assert block["qvalue"] is not None and mass["qvalue"] is not None


def test_removals_that_change_nothing_have_no_p():
    deltas, pairs = planted(sense_effect=0.05)
    row = of_the_sense(deltas.with_columns(delta_ce=pl.lit(0.0)), pairs)
    assert row["pvalue"] is None and row["pvalue_contrast"] is None
    assert row["did"] == 0 and row["reason"] == NOTHING_CHANGES


def test_senses_without_latents_or_without_the_other_sense_say_so():
    deltas, pairs = planted(sense_effect=0.05, off=False)
    senses = pl.DataFrame({"lemma": ["block", "mass"], "sense": ["cardiac", "radiological"]})
    block, mass, _ = summary(deltas, pairs, senses).iter_rows(named=True)
    assert block["did"] is None and block["reason"] == FEW_OFF
    assert block["contrast_low"] > 0.05 and block["qvalue"] is None
    assert mass["reason"] == NO_LATENT and mass["linked_on"] is None and mass["n_latents"] == 0
    nothing = summary(deltas.clear(), pairs.clear(), senses)
    assert nothing["reason"].to_list() == [NO_LATENT] * 3


def test_few_patients_get_no_interval():
    row = of_the_sense(*planted(sense_effect=0.05, n_patients=3))
    assert row["linked_on"] is None and "fewer than" in row["reason"]
    assert row["n_occurrences"] > 0


def test_row_order_does_not_matter():
    deltas, pairs = planted(sense_effect=0.02, patient_sd=0.03)
    shuffled = deltas.sample(fraction=1.0, shuffle=True, seed=9)
    assert summary(deltas, pairs).equals(summary(shuffled, pairs))
