from collections import Counter

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_array
from scipy.stats import binom, fisher_exact

from medsae.polysemy import linked_latents
from medsae.polysemy.ablation_plan import choose_latents, read_linked
from medsae.polysemy.columns import SENSE_LINKED, SOURCE
from medsae.polysemy.linked_latents import (
    find_sense_linked_latents,
    haldane_log_odds,
    permutation_pvalues,
)
from medsae.polysemy.sparse import read_lemmas, sense_sample
from medsae.polysemy.splits import discovery_half, split_patients
from medsae.statistics import NOT_EXCHANGEABLE, benjamini_hochberg, permuted_labels, stream


@pytest.fixture(scope="module")
def found(plant, statistics, tmp_path_factory):
    table = plant(
        {"lemma": "split", "strength": 0.5, "n_patients": 80},
        {"lemma": "same", "patient_share": 0.7, "n_patients": 80},
        {"lemma": "three", "senses": ("a", "b", "c"), "strength": 0.5, "n_patients": 120},
        {"lemma": "control", "kind": "control"},
    )
    path = tmp_path_factory.mktemp("linked") / "occurrence_latents.parquet"
    table.write_parquet(path)
    return table, path, find_sense_linked_latents(path, statistics | {"n_permutations": 999})


def test_planted_latents_are_confirmed_for_their_sense_and_no_others(found):
    _, _, linked = found
    assert linked.columns == list(SENSE_LINKED)
    confirmed = linked.filter("confirmed")
    # sense number i owns latents 20 i … 20 i + 19
    for lemma, senses in (("split", ("one", "two")), ("three", ("a", "b", "c"))):
        for number, sense in enumerate(senses):
            own = confirmed.filter((pl.col("lemma") == lemma) & (pl.col("sense") == sense))
            assert own["latent_id"].is_between(20 * number, 20 * number + 19).all()
            assert len(own) >= 10
    assert confirmed.filter(pl.col("lemma") == "same").is_empty()
    assert confirmed.filter(~pl.col("discovered")).is_empty()
    assert not set(linked["lemma"]) & {"control"}


def test_counts_and_effects_equal_their_definitions(found):
    table, _, linked = found
    for row in linked.sample(40, seed=0).iter_rows(named=True):
        own = table.filter(pl.col("lemma") == row["lemma"])
        fires = np.array([row["latent_id"] in ids for ids in own["latent_ids"].to_list()])
        sense = (own["sense"] == row["sense"]).to_numpy()
        cells = [[(fires & sense).sum(), (~fires & sense).sum()],
                 [(fires & ~sense).sum(), (~fires & ~sense).sum()]]  # fmt: skip
        assert row["n_hits"] == cells[0][0]
        assert row["n_other_hits"] == cells[1][0]
        assert row["n_sense_total"] == sense.sum()
        assert row["n_lemma_hits"] == fires.sum()
        assert row["presence_rate_diff"] == pytest.approx(
            fires[sense].mean() - fires[~sense].mean()
        )
        assert row["pvalue_fisher"] == pytest.approx(fisher_exact(cells, "greater").pvalue)
        a, b, c, d = np.ravel(cells) + 0.5
        assert row["log_odds"] == pytest.approx(np.log(a * d / (b * c)))


def test_q_counts_every_test_not_only_those_listed(found, statistics, monkeypatch):
    _, path, linked = found
    monkeypatch.setattr(linked_latents, "SHOWN_RATE", 0.0)
    monkeypatch.setattr(linked_latents, "SHOWN_DIFFERENCE", -2.0)
    every = find_sense_linked_latents(path, statistics | {"n_permutations": 999})
    assert len(every) == linked["n_tests"][0] > len(linked)
    np.testing.assert_allclose(every["qvalue"], benjamini_hochberg(every["pvalue"]))
    again = every.filter("discovered")["pvalue_confirmation"]
    np.testing.assert_allclose(
        every.filter("discovered")["qvalue_confirmation"], benjamini_hochberg(again)
    )


def test_halves_share_no_patient_and_balance_the_senses(found, statistics):
    _, path, _ = found
    for lemma in read_lemmas(path, kinds=("polysemous",)):
        sample = sense_sample(lemma, 5)
        half = discovery_half(sample, 7)
        patients = lemma.table["patient_id"].to_numpy()
        assert not set(patients[half]) & set(patients[~half])
        counts = [np.bincount(sample.label[each]) for each in (half, ~half)]
        assert np.min(counts) >= 10


def test_two_patients_of_a_sense_go_to_different_halves():
    patient, label = np.arange(4), np.array([0, 0, 1, 1])
    for number in range(20):
        half = split_patients(patient, label, stream(number))
        assert half[:2].sum() == half[2:].sum() == 1


def test_p_equals_its_definition():
    rng = np.random.default_rng(1)
    patient = np.repeat(np.arange(20), 2)
    label = rng.integers(0, 2, 40).astype(np.int8)
    firing = (rng.random((40, 6)) < 0.4).astype(np.float32)
    found, taken = permutation_pvalues(csr_array(firing), patient, label, 2, 99, stream(0))
    assert (taken == 99).all()
    for sense in (0, 1):

        def difference(labels, sense=sense):
            return firing[labels == sense].mean(0) - firing[labels != sense].mean(0)

        null = [
            difference(row)
            for block in permuted_labels(label, patient, 99, stream(0))
            for row in block
        ]
        reaching = (np.array(null) >= difference(label) - 1e-6).sum(0)
        np.testing.assert_allclose(found[sense], (1 + reaching) / 100)


def test_p_does_not_exceed_its_level_when_senses_do_not_matter():
    # a patient's occurrences fire alike, and share a sense; 500 sets of 4 latents
    n_sets, rejected, fisher = 500, np.zeros((500, 4), bool), np.zeros((500, 4), bool)
    above = {level: np.zeros(4) for level in (0.01, 0.2, 0.5)}
    for number in range(n_sets):
        rng = np.random.default_rng([number, 21])
        sizes = rng.integers(1, 6, 30)
        patient = np.repeat(np.arange(30), sizes)
        label = rng.integers(0, 2, 30)[patient].astype(np.int8)
        rate = rng.choice([0.1, 0.9], (30, 4))[patient]
        firing = (rng.random(rate.shape) < rate).astype(np.float32)
        pvalues, _ = permutation_pvalues(csr_array(firing), patient, label, 2, 999, stream(number))
        rejected[number] = pvalues[0] <= 0.05
        for level, count in above.items():
            count += pvalues[0] <= level
        for latent in range(4):
            fires = firing[:, latent] > 0
            table = [[(fires & (label == s)).sum(), (~fires & (label == s)).sum()] for s in (0, 1)]
            fisher[number, latent] = fisher_exact(table, "greater").pvalue <= 0.05
    low, high = binom.ppf([0.0005, 0.9995], n_sets, 0.05)
    assert (rejected.sum(0) <= high).all()
    for level, count in above.items():
        assert (count <= binom.ppf(0.9995, n_sets, level)).all()
    # discrete, so a little below the level, but not far
    assert (rejected.sum(0) >= low / 2).all()
    # the published test takes occurrences for independent
    assert fisher.mean() > 0.1


def test_discoveries_without_effect_are_rare(plant, write_latents, statistics):
    discovered = 0
    for number in range(30):
        table = plant(
            {"lemma": "a", "patient_share": 0.7, "seed": number},
            {"lemma": "b", "patient_share": 0.7, "seed": 100 + number},
        )
        linked = find_sense_linked_latents(write_latents(table), statistics)
        discovered += linked["discovered"].any()
    # family-wise error under the complete null is q's level
    assert discovered <= binom.ppf(0.9995, 30, 0.05)


@pytest.mark.slow
def test_among_true_ones_no_more_discoveries_are_false_than_q_says(
    plant, write_latents, statistics
):
    false, true = [], 0
    for number in range(40):
        table = plant(
            {"lemma": "a", "strength": 0.25, "patient_share": 0.6, "n_patients": 80, "seed": number}
        )
        linked = find_sense_linked_latents(write_latents(table), statistics)
        found = linked.filter("discovered")
        own = {"one": range(20), "two": range(20, 40)}
        right = [row["latent_id"] in own[row["sense"]] for row in found.iter_rows(named=True)]
        false.append(right.count(False) / max(1, len(right)))
        true += sum(right)
    assert true > 100
    assert np.mean(false) <= 0.05 + 3 * np.std(false) / np.sqrt(len(false))


def test_label_blind_prefilter(plant, write_latents, statistics):
    # a latent is tested for both senses if it fires and is silent often enough, whatever is meant
    table = plant({"lemma": "a", "strength": 0.3, "n_patients": 60})
    path = write_latents(table)
    one = find_sense_linked_latents(path, statistics)
    (lemma,) = read_lemmas(path, kinds=("polysemous",))
    sample = sense_sample(lemma, statistics["min_occurrences"])
    half = discovery_half(sample, statistics["seed"])
    notes: dict[str, set[int]] = {}
    for doc_id, latents in zip(
        sample.latents.table["doc_id"].filter(pl.Series(half)),
        sample.latents.codes[np.flatnonzero(half)].toarray() > 0,
        strict=True,
    ):
        notes.setdefault(doc_id, set()).update(np.flatnonzero(latents).tolist())
    fires = Counter(latent for latents in notes.values() for latent in latents)
    enough = linked_latents.MIN_DOCUMENTS
    n_tested = sum(enough <= n <= len(notes) - enough for n in fires.values())
    assert 0 < n_tested < len(fires)
    assert one["n_tests"].unique().to_list() == [2 * n_tested]
    assert one["n_lemma_hits"].min() >= linked_latents.MIN_DOCUMENTS


def test_no_latents_have_no_p():
    label = np.array([0, 1], dtype=np.int8)
    none = csr_array((2, 0), dtype=np.float32)
    pvalues, taken = permutation_pvalues(none, np.arange(2), label, 2, 99, stream(0))
    assert pvalues.shape == taken.shape == (2, 0)


def test_confirmation_is_asked_only_of_what_may_be_discovered(found):
    _, _, linked = found
    assert linked.filter("discovered")["pvalue_confirmation"].is_not_null().all()
    assert linked.filter(~pl.col("discovered"))["qvalue_confirmation"].is_null().all()


def test_haldane_is_finite_with_empty_cells():
    assert haldane_log_odds(np.array([5]), 5, np.array([0]), 5)[0] == pytest.approx(
        np.log(5.5 * 5.5 / 0.25)
    )


def test_a_term_without_a_latent_to_test_has_one_row_that_says_why(
    plant, write_latents, statistics, tmp_path
):
    table = plant(
        {"lemma": "few", "senses": ("one",), "n_patients": 7, "per_patient": (3,)},
        {"lemma": "lopsided", "senses": ("one",), "per_patient": (7,)},
        {"lemma": "rare", "senses": ("one",), "n_patients": 1, "per_patient": (3,)},
        {"lemma": "control", "kind": "control"},
    )
    # two patients of the confirmation half mean two sometimes, nobody means it mostly
    half = split_patients(np.arange(40), np.zeros(40, int), stream(7, "halves", "lopsided"))
    mixed = [f"p{patient:03d}" for patient in np.flatnonzero(~half)[:2]]
    lemma, place = pl.col("lemma"), pl.col("char_start") % 1000 // 10
    two = (lemma == "lopsided") & pl.col("patient_id").is_in(mixed) & (place < 3)
    two |= (lemma == "few") & (place == 1)
    table = table.with_columns(sense=pl.when(two).then(pl.lit("two")).otherwise("sense"))
    untested = find_sense_linked_latents(write_latents(table), statistics)
    assert untested.columns == list(SENSE_LINKED)
    notes = "no latent fires in 5 of the 8 notes of the discovery half and is silent in as many"
    assert untested.select("lemma", "reason").rows() == [
        ("few", notes),
        ("lopsided", "no occurrence of two in the discovery half"),
        ("rare", "fewer than two senses have 5 occurrences in two patients (one: 3)"),
    ]
    assert untested["n_tests"].to_list() == [0] * 3
    of_latents = pl.exclude("lemma", "reason", "n_tests", *SOURCE)
    assert all(untested.select(of_latents.is_null().all()).row(0))
    # what is tested is tested as without them
    other = plant({"lemma": "tested", "strength": 0.5}).with_columns(pl.col("occurrence_id") + 1000)
    both = find_sense_linked_latents(write_latents(pl.concat([table, other])), statistics)
    alone = find_sense_linked_latents(write_latents(other), statistics)
    assert both.filter(pl.col("latent_id").is_not_null()).equals(alone)
    assert both.filter(pl.col("latent_id").is_null())["reason"].equals(untested["reason"])
    both.write_csv(tmp_path / "linked.csv")
    chosen = choose_latents(read_linked(tmp_path / "linked.csv"), 5)
    assert set(chosen["lemma"]) == {"tested"} and chosen["latent_id"].null_count() == 0


def test_an_empty_table_gives_an_empty_table(plant, write_latents, statistics):
    linked = find_sense_linked_latents(write_latents(plant({"lemma": "a"}).clear()), statistics)
    assert linked.is_empty() and linked.columns == list(SENSE_LINKED)


def test_what_only_discovering_patients_show_is_not_confirmed(plant, write_latents, statistics):
    table = plant({"lemma": "a", "n_patients": 80})
    (lemma,) = read_lemmas(write_latents(table), kinds=("polysemous",))
    sample = sense_sample(lemma, statistics["min_occurrences"])
    half = pl.Series(discovery_half(sample, statistics["seed"]))
    discovering = pl.col("occurrence_id").is_in(lemma.table["occurrence_id"].filter(half).implode())
    one = pl.col("sense") == "one"
    # in the other half the first fires whatever is meant; the second is linked in both
    fires = {300: pl.when(discovering).then(one).otherwise(pl.col("occurrence_id") % 2 == 0)}
    fires[301] = one
    for latent, where in fires.items():
        ids = pl.col("latent_ids").list.concat(pl.lit([latent], pl.List(pl.Int32)))
        table = table.with_columns(
            pl.when(where).then(ids).otherwise("latent_ids").alias("latent_ids"),
            *(
                pl.when(where)
                .then(pl.col(values).list.concat(pl.col(values).list.last() / 2))
                .otherwise(values)
                .alias(values)
                for values in ("z_values", "z_values_norm")
            ),
        )
    linked = find_sense_linked_latents(write_latents(table), statistics)
    judged = ("discovered", "confirmed")
    rows = linked.filter(pl.col("latent_id") >= 300).sort("latent_id")
    assert rows.select("sense", *judged).rows() == [("one", True, False), ("one", True, True)]


@pytest.mark.parametrize("times", [4, 0.5])
def test_smallest_q_is_that_of_one_test_at_the_smallest_p(
    plant, write_latents, statistics, monkeypatch, times
):
    monkeypatch.setattr("medsae.statistics.sequential.MAX_PERMUTATIONS", 0)
    path = write_latents(plant({"lemma": "a", "strength": 0.5}))
    n_tests = find_sense_linked_latents(path, statistics)["n_tests"][0]
    n_permutations = int(times * n_tests) - 1
    linked = find_sense_linked_latents(path, statistics | {"n_permutations": n_permutations})
    # Benjamini and Hochberg: p of a test that no permutation reaches, times the tests, 1 at most
    p = 1 / (1 + n_permutations)
    assert linked["smallest_q"].unique().to_list() == [pytest.approx(min(1, n_tests * p))]


def test_row_order_does_not_matter(found, write_latents, statistics):
    table, _, linked = found
    path = write_latents(table.sample(fraction=1, shuffle=True, seed=3), "shuffled.parquet")
    assert linked.equals(find_sense_linked_latents(path, statistics | {"n_permutations": 999}))


def test_latents_that_no_permutation_can_judge_have_no_p_and_the_reason(
    plant, write_latents, statistics
):
    # every patient has sense one first and sense two second
    table = plant({"lemma": "fixed", "n_patients": 40, "per_patient": (2,), "strength": 0.6})
    senses = ["one", "two"] * (table.height // 2)
    table = table.sort("patient_id", "doc_id", "char_start").with_columns(sense=pl.Series(senses))
    free = plant({"lemma": "free", "n_patients": 40, "strength": 0.6})
    both = pl.concat([table, free.with_columns(pl.col("occurrence_id") + 1000)])
    linked = find_sense_linked_latents(write_latents(both), statistics | {"n_permutations": 999})
    fixed = linked.filter(pl.col("lemma") == "fixed")
    assert fixed.height
    assert fixed["pvalue"].null_count() == fixed["qvalue"].null_count() == fixed.height
    assert fixed["reason"].unique().to_list() == [NOT_EXCHANGEABLE]
    assert not fixed["discovered"].any() and not fixed["confirmed"].any()
    # they are no tests: q of the others is as if they were not there
    alone = find_sense_linked_latents(
        write_latents(free, "free.parquet"), statistics | {"n_permutations": 999}
    )
    assert linked["n_tests"][0] == alone["n_tests"][0]
    rest = linked.filter(pl.col("lemma") == "free")
    assert rest["qvalue"].to_list() == alone["qvalue"].to_list()
    assert rest["reason"].null_count() == rest.height


def test_a_latent_silent_in_the_other_half_is_not_confirmed_and_says_why():
    label = (np.arange(20) % 2).astype(np.int8)
    firing = csr_array(np.stack([label, np.zeros(20), np.ones(20)], axis=1).astype(np.float32))
    pvalues, taken = permutation_pvalues(firing, np.arange(20), label, 2, 999, stream(0))
    assert pvalues[1, 0] < 0.01 or pvalues[0, 0] < 0.01
    assert np.isnan(pvalues[:, 1:]).all() and (taken[:, 1:] == 0).all()
