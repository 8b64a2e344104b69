"""Pairs for the mixed-effects models weigh senses as Δ does."""

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsae.polysemy.jaccard import observed_overlaps
from medsae.polysemy.jaccard_pairs import MAX_PAIRS, distinct_pairs, pair_rows
from medsae.polysemy.overlap import grouped_overlap
from medsae.polysemy.sparse import read_lemmas, sense_sample
from medsae.statistics import stream


@pytest.fixture
def unequal(plant):
    """Sense one: few occurrences that overlap much; sense two: eight times as many that do not."""
    table = plant({"lemma": "a", "n_patients": 200, "strength": 0.7, "mixed_patients": 0.0})
    own = pl.col("sense") == "one"
    few = table.filter(own)["patient_id"].unique().sort()[:12].to_list()
    table = table.filter(~own | pl.col("patient_id").is_in(few))
    scattered = table.filter(~own).with_columns(
        # as if every occurrence of the frequent sense had latents of its own
        pl.Series(
            "latent_ids",
            np.random.default_rng(0).permuted(
                np.tile(np.arange(300), (table.filter(~own).height, 1)), axis=1
            )[:, :16].tolist(),
            dtype=pl.List(pl.Int32),
        )
    )  # fmt: skip
    (lemma,) = read_lemmas(pl.concat([table.filter(own), scattered]))
    return sense_sample(lemma, 5)


def test_rows_weigh_senses_as_delta_does(unequal):
    rows = pl.DataFrame(pair_rows(unequal, stream(0, "pairs")))
    counts = rows.filter(pl.col("pair_type") == "within").group_by("sense_a").len()
    assert counts["len"].n_unique() == 1 and counts.height == 2
    means = dict(rows.group_by("pair_type").agg(pl.col("jaccard").mean()).iter_rows())
    patient = unequal.latents.patient
    grouped = grouped_overlap(unequal.latents.codes, patient, unequal.label, None)
    exact = observed_overlaps(grouped, 2)
    assert means["within"] == pytest.approx(exact.within[0], abs=0.01)
    assert means["within"] - means["cross"] == pytest.approx(exact.delta[0], abs=0.012)
    # all pairs alike would give the mean of the frequent sense
    n = np.bincount(unequal.label)
    within = rows.filter(pl.col("pair_type") == "within").group_by("sense_a", maintain_order=True)
    by_pairs = np.average(within.agg(pl.col("jaccard").mean())["jaccard"], weights=n**2)
    assert abs(by_pairs - exact.within[0]) > 0.05


def test_three_senses_and_their_three_pairs_weigh_alike(plant):
    table = plant({"lemma": "a", "senses": ("a", "b", "c"), "n_patients": 80})
    (lemma,) = read_lemmas(table)
    rows = pl.DataFrame(pair_rows(sense_sample(lemma, 5), stream(1)))
    counts = rows.group_by("sense_a", "sense_b").len()
    within = counts.filter(pl.col("sense_a") == pl.col("sense_b"))
    across = counts.filter(pl.col("sense_a") != pl.col("sense_b"))
    assert within["len"].to_list() == [MAX_PAIRS // 3] * 3
    assert across["len"].to_list() == [MAX_PAIRS // 3] * 3
    assert (rows["patient_a"] != rows["patient_b"]).all()


@given(st.integers(2, 30), st.integers(1, 30), st.booleans(), st.integers(0, 100))
def test_pairs_are_distinct_and_all_there_when_few(n, m, same, seed):
    patient = np.random.default_rng(seed).integers(0, 6, n + m)
    first = np.arange(n)
    second = first if same else np.arange(n, n + m)
    a, b = distinct_pairs(first, second, patient, 10_000, stream(seed))
    found = list(zip(a.tolist(), b.tolist(), strict=True))
    every = combinations(first, 2) if same else [(i, j) for i in first for j in second]
    assert sorted(found) == sorted((i, j) for i, j in every if patient[i] != patient[j])
    few, _ = distinct_pairs(first, second, patient, 3, stream(seed))
    assert len(few) == min(3, len(found))
