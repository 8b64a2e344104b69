"""What training adds to Δ of a term, over the occurrences of both networks."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from medsae.polysemy.columns import TRAINING_GAIN
from medsae.polysemy.jaccard_pairs import MODELLED_K
from medsae.polysemy.jaccard_tables import measure_jaccard
from medsae.polysemy.training_gain import measure_training_gain

PLANS = (
    {"lemma": "learned", "strength": 0.6},
    {"lemma": "neither"},
    {"lemma": "rare", "n_patients": 2},
    {"lemma": "control", "kind": "control"},
)
LATENTS = ["latent_ids", "z_values", "z_values_norm"]


def without_senses(table, seed=0):
    """The same occurrences with the latents of each term dealt out again among them."""
    dealt = [
        part.drop(LATENTS).hstack(part.select(LATENTS).sample(fraction=1, shuffle=True, seed=seed))
        for _, part in table.group_by("lemma", maintain_order=True)
    ]
    return pl.concat(dealt).with_columns(pl.lit("tiny-random").alias("model"))


@pytest.fixture
def trained(plant):
    return plant(*PLANS)


@pytest.fixture
def measure(write_latents, statistics):
    def measure(trained, untrained):
        paths = [write_latents(t, f"{n}.parquet") for n, t in enumerate((trained, untrained))]
        table = measure_training_gain(*paths, statistics)
        return table, {row["lemma"]: row for row in table.to_dicts()}

    return measure


def test_what_training_adds_is_told_from_what_is_there_without(trained, measure):
    table, rows = measure(trained, without_senses(trained))
    assert table.columns == list(TRAINING_GAIN)
    assert list(rows) == ["learned", "neither", "rare"]
    learned, neither = rows["learned"], rows["neither"]
    assert learned["gain_low"] > 0.05
    assert learned["gain"] == pytest.approx(learned["delta"] - learned["delta_untrained"])
    assert neither["gain_low"] < 0 < neither["gain_high"]
    assert rows["rare"]["gain"] is None and "fewer than two senses" in rows["rare"]["reason"]
    assert set(table["model"]) == {"tiny"} and set(table["untrained_model"]) == {"tiny-random"}


def test_a_network_compared_with_itself_gains_nothing(trained, measure):
    _, rows = measure(trained, trained)
    for lemma in ("learned", "neither"):
        assert [rows[lemma][f"gain{end}"] for end in ("", "_low", "_high")] == [0, 0, 0]
        assert rows[lemma]["delta_low"] < rows[lemma]["delta"] < rows[lemma]["delta_high"]


def test_both_deltas_are_those_of_the_overlap_table(trained, measure, write_latents, statistics):
    untrained = without_senses(trained)
    _, rows = measure(trained, untrained)
    for table, name in ((trained, "delta"), (untrained, "delta_untrained")):
        terms, _, _ = measure_jaccard(write_latents(table), [5], statistics)
        deltas = dict(terms.filter(k=MODELLED_K).select("lemma", "delta").iter_rows())
        for lemma in ("learned", "neither"):
            assert rows[lemma][name] == pytest.approx(deltas[lemma], abs=1e-6)


def test_only_occurrences_of_both_are_compared(trained, measure):
    untrained = without_senses(trained)
    one = trained.filter(pl.col("occurrence_id") % 5 > 0)
    other = untrained.filter(pl.col("occurrence_id") % 7 > 0)
    apart, _ = measure(one, other)
    shared = pl.col("occurrence_id").is_in(set(one["occurrence_id"]) & set(other["occurrence_id"]))
    together, _ = measure(trained.filter(shared), untrained.filter(shared))
    assert apart.equals(together)
    _, rows = measure(trained, untrained.filter(pl.col("lemma") != "learned"))
    assert list(rows) == ["neither", "rare"]


def test_row_order_does_not_matter(trained, measure):
    untrained = without_senses(trained)
    expected, _ = measure(trained, untrained)
    mixed = (t.sample(fraction=1, shuffle=True, seed=3) for t in (trained, untrained))
    assert measure(*mixed)[0].equals(expected)


def test_a_sense_of_few_patients_has_no_interval(plant, measure):
    few = plant({"lemma": "few", "n_patients": 8, "per_patient": (4,), "mixed_patients": 0.0})
    _, rows = measure(few, without_senses(few))
    assert rows["few"]["gain"] is not None
    assert rows["few"]["gain_low"] is None and "patients only" in rows["few"]["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("strength", [0.0, 0.4])
def test_the_interval_covers_a_gain_of_zero(plant, measure, strength):
    """Two networks that separate a sense alike, over the same occurrences of the same patients."""
    n_runs, covered = 500, 0
    for run in range(n_runs):
        plan = {"lemma": "x", "strength": strength, "patient_share": 0.3, "seed": run}
        one = plant(plan, n_latents=200)
        rng = np.random.default_rng(run)
        # within a sense, which latents an occurrence has is exchanged: Δ has the same distribution
        dealt = [
            part.drop(LATENTS).hstack(
                part.select(LATENTS).sample(fraction=1, shuffle=True, seed=int(rng.integers(1e9)))
            )
            for _, part in one.group_by("sense", maintain_order=True)
        ]
        _, rows = measure(one, pl.concat(dealt))
        covered += rows["x"]["gain_low"] <= 0 <= rows["x"]["gain_high"]
    assert covered >= binom.ppf(0.0005, n_runs, 0.95)
