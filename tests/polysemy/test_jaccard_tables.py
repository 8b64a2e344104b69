from itertools import combinations

import numpy as np
import polars as pl
import pytest

from medsae.polysemy import jaccard_pairs, jaccard_tables
from medsae.polysemy.columns import JACCARD_AT_K, JACCARD_CROSS_SENSE, JACCARD_PAIRS
from medsae.polysemy.jaccard import bootstrap_overlaps
from medsae.polysemy.jaccard_controls import N_CUTS
from medsae.polysemy.jaccard_tables import TOO_FEW_TESTED, measure_jaccard
from medsae.polysemy.overlap import grouped_overlap
from medsae.polysemy.sparse import read_lemmas, sense_sample
from medsae.statistics import NOT_EXCHANGEABLE, percentile_interval, stream

PLANS = (
    {"lemma": "split", "strength": 0.6},
    {"lemma": "same", "patient_share": 0.7},
    {"lemma": "three", "senses": ("a", "b", "c"), "strength": 0.4},
    {"lemma": "rare", "n_patients": 2},
    {"lemma": "control a", "kind": "control"},
    {"lemma": "control b", "kind": "control", "n_patients": 80, "patient_share": 0.5},
    {"lemma": "few", "kind": "control", "n_patients": 3},
)


@pytest.fixture(scope="module")
def measured(plant, statistics, tmp_path_factory):
    table = plant(*PLANS)
    path = tmp_path_factory.mktemp("jaccard") / "occurrence_latents.parquet"
    table.write_parquet(path)
    return table, *measure_jaccard(path, [4, 8, 50], statistics)


def test_tables_have_their_columns_and_one_row_per_term_and_k(measured):
    _, terms, published, pairs = measured
    assert terms.columns == list(JACCARD_AT_K)
    assert published.columns == list(JACCARD_CROSS_SENSE)
    assert pairs.columns == list(JACCARD_PAIRS)
    # k = 50 is more than any occurrence has: the last row is all 16; 10 is always there
    assert terms["k"].unique().sort().to_list() == [4, 8, 10, 16]
    assert len(terms) == 4 * (len(PLANS) + 1)


def test_long_codes_are_compared_at_10_20_50_and_all(plant, write_latents, statistics):
    table = plant({"lemma": "split", "strength": 0.3}, k=64)
    terms, _, _ = measure_jaccard(write_latents(table), [10, 20, 50], statistics)
    rows = terms.filter(lemma="split").sort("k")
    assert rows["k"].to_list() == [10, 20, 50, 64]
    assert rows["delta"].null_count() == 0 and rows["delta"].n_unique() == 4


def test_planted_senses_separate_and_others_do_not(measured):
    _, terms, _, _ = measured
    for row in terms.filter(pl.col("lemma").is_in(["split", "three"])).iter_rows(named=True):
        assert row["delta_low"] > 0
        assert row["qvalue"] < 0.05
        assert row["within_low"] < row["within"] < row["within_high"]
    for row in terms.filter(pl.col("lemma") == "same").iter_rows(named=True):
        assert row["delta_low"] < 0.005
        assert row["pvalue"] > 0.02


def test_intervals_are_the_central_95_percent_of_resamples(measured, statistics):
    table, terms, _, _ = measured
    (lemma,) = read_lemmas(table.filter(pl.col("lemma") == "split"))
    sample = sense_sample(lemma, statistics["min_occurrences"])
    grouped = grouped_overlap(sample.latents.codes, sample.latents.patient, sample.label, 8)
    rng = stream(statistics["seed"], "jaccard ci", "split")
    resampled = bootstrap_overlaps(grouped, 2, statistics["n_bootstrap"], rng)
    row = terms.filter(pl.col("lemma") == "split", pl.col("k") == 8).row(0, named=True)
    for name in ("within", "cross", "delta", "polysemy_index"):
        expected = percentile_interval(getattr(resampled, name), 0.95)
        np.testing.assert_allclose([row[f"{name}_low"], row[f"{name}_high"]], expected, rtol=1e-8)


def test_q_is_taken_over_the_terms_of_one_k(measured):
    _, terms, _, _ = measured
    for _, part in terms.filter(pl.col("pvalue").is_not_null()).group_by("k"):
        ordered = part.sort("pvalue")
        expected = ordered["pvalue"] * 3 / np.arange(1, 4)
        running = np.minimum.accumulate(expected.to_numpy()[::-1])[::-1]
        np.testing.assert_allclose(ordered["qvalue"], running, rtol=1e-9)


def test_what_cannot_be_estimated_says_why(measured):
    _, terms, _, _ = measured
    for lemma, phrase in (("rare", "fewer than two senses"), ("few", "too few")):
        rows = terms.filter(pl.col("lemma") == lemma)
        assert all(phrase in reason for reason in rows["reason"])
        assert rows["delta"].null_count() == rows["pvalue"].null_count() == len(rows)


def test_controls_overlap_with_themselves_and_show_the_spread_of_random_halves(measured):
    table, terms, _, _ = measured
    for row in terms.filter(pl.col("kind") == "control", pl.col("reason").is_null()).iter_rows(
        named=True
    ):
        # a mean over random halves is zero by construction and says nothing
        assert row["delta"] is None and row["cross"] is None
        assert row["chance_delta_low"] < 0 < row["chance_delta_high"]
        assert row["n_cuts"] == N_CUTS
    own = table.filter(pl.col("lemma") == "control a")
    expected = [
        len(set(a) & set(b)) / len(set(a) | set(b))
        for (a, p), (b, q) in combinations(own.select("latent_ids", "patient_id").rows(), 2)
        if p != q
    ]
    row = terms.filter(pl.col("lemma") == "control a", pl.col("k") == 16).row(0, named=True)
    assert row["within"] == pytest.approx(np.mean(expected), rel=1e-6)


def test_terms_are_compared_with_controls_of_like_frequency(measured):
    _, terms, _, _ = measured
    row = terms.filter(pl.col("lemma") == "split", pl.col("k") == 4).row(0, named=True)
    controls = terms.filter(pl.col("kind") == "control", pl.col("k") == 4)
    assert row["matched_controls"] == "control a|control b"
    assert row["control_within"] == pytest.approx(controls["within"].mean(), rel=1e-9)


def test_a_term_is_compared_with_cuts_of_its_controls(measured):
    _, terms, _, _ = measured
    at_4 = terms.filter(pl.col("k") == 4, pl.col("reason").is_null())
    rows = {row["lemma"]: row for row in at_4.iter_rows(named=True)}
    for lemma in ("split", "same", "three"):
        assert rows[lemma]["n_cuts"] == 2 * N_CUTS
        assert rows[lemma]["chance_delta_low"] < 0 < rows[lemma]["chance_delta_high"]
    assert rows["split"]["delta"] > rows["split"]["chance_delta_95"] > 0
    assert abs(rows["same"]["delta"]) < 2 * rows["same"]["chance_delta_95"]


def test_the_floor_is_the_overlap_of_different_terms(
    measured, monkeypatch, plant, write_latents, statistics
):
    monkeypatch.setattr("medsae.polysemy.jaccard_controls.FLOOR_OCCURRENCES", 10_000)
    table = plant(
        {"lemma": "x", "strength": 0.5}, {"lemma": "y"}, {"lemma": "z", "kind": "control"}
    )
    terms, _, _ = measure_jaccard(write_latents(table, "three.parquet"), [16], statistics)
    rows = table.select("lemma", "patient_id", "latent_ids").rows()
    expected = [
        len(set(a) & set(b)) / len(set(a) | set(b))
        for (m, p, a), (n, q, b) in combinations(rows, 2)
        if m != n and p != q
    ]
    floor = terms.filter(pl.col("kind") == "floor", pl.col("k") == 16).row(0, named=True)
    assert floor["cross"] == pytest.approx(np.mean(expected), rel=1e-6)
    assert floor["cross_low"] < floor["cross"] < floor["cross_high"]


def test_published_table_equals_all_pairs_by_python_sets(measured):
    table, _, published, _ = measured
    assert len(published) == 1 + 1 + 3
    for row in published.iter_rows(named=True):
        own = table.filter(pl.col("lemma") == row["lemma"])
        first, second = (
            [set(ids) for ids in own.filter(pl.col("sense") == row[name])["latent_ids"]]
            for name in ("sense1", "sense2")
        )
        values = [len(a & b) / len(a | b) for a in first for b in second]
        assert row["n_pairs"] == len(values)
        assert row["mean_jaccard"] == pytest.approx(np.mean(values), rel=1e-9)
        assert row["median_jaccard"] == pytest.approx(np.median(values), rel=1e-9)
        assert row["std_jaccard"] == pytest.approx(np.std(values), rel=1e-9)


def test_sampled_pairs_are_real_pairs_of_different_patients(measured):
    table, _, _, pairs = measured
    assert (pairs["patient_a"] != pairs["patient_b"]).all()
    counts = pairs.group_by("lemma", "pair_type").len()
    assert counts["len"].max() <= jaccard_pairs.MAX_PAIRS
    sets = {}
    for row in table.iter_rows(named=True):
        key = row["lemma"], row["doc_id"], row["patient_id"]
        sets.setdefault(key, []).append((row["sense"], row["latent_ids"]))
    for row in pairs.sample(60, seed=1).iter_rows(named=True):
        first, second = (
            sets[row["lemma"], row[f"doc_{side}"], row[f"patient_{side}"]] for side in "ab"
        )
        possible = [
            (len(set(a) & set(b)) / len(set(a) | set(b)), s == t)
            for s, a in first
            for t, b in second
        ]
        if row["kind"] == "polysemous":
            possible = [pair for pair in possible if pair[1] == (row["pair_type"] == "within")]
        assert any(value == pytest.approx(row["jaccard"]) for value, _ in possible)


def test_no_pair_is_drawn_twice(measured, monkeypatch, write_latents, statistics):
    table, *_ = measured
    monkeypatch.setattr(jaccard_pairs, "MAX_PAIRS", 3_000)
    _, _, pairs = measure_jaccard(write_latents(table, "again.parquet"), [8], statistics)
    # one document may hold a term several times, so count pairs against all there are
    own = table.filter(pl.col("lemma") == "split").select("patient_id", "sense").rows()
    every = [a[1] == b[1] for a, b in combinations(own, 2) if a[0] != b[0]]
    drawn = pairs.filter(pl.col("lemma") == "split")
    assert drawn.filter(pl.col("pair_type") == "within").height <= sum(every)
    assert drawn.height <= len(every)


def test_row_order_and_cutting_do_not_matter(measured, write_latents, statistics):
    table, *tables = measured
    shuffled = table.sample(fraction=1, shuffle=True, seed=5)
    again = measure_jaccard(write_latents(shuffled, "shuffled.parquet"), [4, 8, 50], statistics)
    for one, other in zip(tables, again, strict=True):
        assert one.equals(other)


def test_terms_do_not_influence_each_other(measured, write_latents, statistics):
    table, terms, _, _ = measured
    alone = table.filter(pl.col("lemma").is_in(["split", "control a"]))
    again, _, _ = measure_jaccard(write_latents(alone, "alone.parquet"), [4, 8, 50], statistics)
    kept = ["k", "within", "within_low", "cross", "delta", "delta_high", "pvalue"]
    for lemma in ("split", "control a"):
        one, other = (each.filter(pl.col("lemma") == lemma).select(kept) for each in (terms, again))
        assert one.equals(other)


def test_more_occurrences_than_compared_are_cut_by_whole_patients(
    measured, monkeypatch, write_latents, statistics
):
    table, *_ = measured
    monkeypatch.setattr(jaccard_tables, "MAX_OCCURRENCES", 50)
    monkeypatch.setattr(jaccard_tables, "MAX_TESTED", 30)
    terms, _, _ = measure_jaccard(write_latents(table, "cut.parquet"), [8], statistics)
    row = terms.filter(pl.col("lemma") == "split", pl.col("k") == 8).row(0, named=True)
    assert row["n_occurrences1"] + row["n_occurrences2"] <= 50
    assert row["n_tested"] <= 30
    assert row["pvalue"] is not None


def test_patients_of_one_arrangement_have_no_p_and_the_reason(plant, write_latents, statistics):
    # every patient has sense one in the first note and two in the second: nothing to exchange
    table = plant({"lemma": "fixed", "n_patients": 20, "per_patient": (2,), "strength": 0.5})
    senses = ["one", "two"] * (table.height // 2)
    table = table.sort("patient_id", "doc_id", "char_start").with_columns(sense=pl.Series(senses))
    terms, _, _ = measure_jaccard(write_latents(table), [8], statistics)
    for row in terms.filter(pl.col("kind") == "polysemous").iter_rows(named=True):
        assert row["pvalue"] is None and row["qvalue"] is None and row["n_permutations"] is None
        assert row["reason"] == NOT_EXCHANGEABLE
        assert row["delta_low"] < row["delta"] < row["delta_high"]


def test_a_sense_of_one_patient_among_the_tested_has_no_p_and_the_reason(
    monkeypatch, plant, write_latents, statistics
):
    table = plant({"lemma": "a", "n_patients": 30, "mixed_patients": 0.0})
    rare = table.filter(pl.col("sense") == "two")["patient_id"].unique().sort()[:4].to_list()
    few = table.filter((pl.col("sense") == "one") | pl.col("patient_id").is_in(rare))

    def cap(lemma, limit, rng):
        kept = np.ones(len(lemma), dtype=bool)
        if limit == jaccard_tables.MAX_TESTED:
            kept = (~lemma.table["patient_id"].is_in(rare[1:])).to_numpy()
        return kept

    terms, _, _ = measure_jaccard(write_latents(few, "all.parquet"), [8], statistics)
    assert terms.filter(kind="polysemous")["pvalue"].is_not_null().all()
    monkeypatch.setattr(jaccard_tables, "cap_by_patient", cap)
    terms, _, _ = measure_jaccard(write_latents(few, "capped.parquet"), [8], statistics)
    for row in terms.filter(kind="polysemous").iter_rows(named=True):
        assert row["delta"] is not None
        assert row["pvalue"] is None and row["n_permutations"] is None
        assert row["reason"] == TOO_FEW_TESTED


def test_without_any_occurrence_the_tables_are_empty(plant, write_latents, statistics):
    none = plant({"lemma": "a"}).clear()
    tables = measure_jaccard(write_latents(none), [8], statistics)
    for table, columns in zip(
        tables, (JACCARD_AT_K, JACCARD_CROSS_SENSE, JACCARD_PAIRS), strict=True
    ):
        assert table.is_empty() and table.columns == list(columns)


def test_a_sense_of_few_patients_has_no_interval(plant, write_latents, statistics):
    table = plant({"lemma": "a", "n_patients": 30, "mixed_patients": 0.0})
    rare = table.filter(pl.col("sense") == "two")["patient_id"].unique().sort()[:4].to_list()
    few = table.filter((pl.col("sense") == "one") | pl.col("patient_id").is_in(rare))
    terms, _, _ = measure_jaccard(write_latents(few), [8], statistics)
    for row in terms.filter(pl.col("kind") == "polysemous").iter_rows(named=True):
        assert row["delta"] is not None and row["pvalue"] is not None
        assert row["delta_low"] is None and row["within_high"] is None
        assert row["reason"] == "no interval: a sense has 4 patients only"
