from itertools import combinations

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_array
from scipy.stats import entropy as scipy_entropy

from medsae.polysemy.columns import ENTROPY
from medsae.polysemy.entropy import (
    MIN_PATIENTS,
    drawn_entropies,
    measure_entropy,
    patient_draws,
    pooled_entropy,
    rarefied_entropy,
)
from medsae.statistics import stream


@pytest.fixture
def measure(plant, write_latents, tmp_path, statistics):
    def run(*plans, alive=250):
        table = plant(*plans)
        counts = pl.DataFrame(
            {"latent_id": range(300), "firing_count": [9] * alive + [0] * (300 - alive)}
        )
        counts.write_parquet(tmp_path / "calibration.parquet")
        path = write_latents(table)
        return table, measure_entropy(path, tmp_path / "calibration.parquet", statistics)

    return run


def random_codes(n, rng, n_latents=60, k=6):
    ids = np.concatenate([rng.choice(n_latents, k, replace=False) for _ in range(n)])
    return csr_array(
        (rng.gamma(2, size=n * k), ids.astype(np.int32), np.arange(0, n * k + 1, k)),
        shape=(n, n_latents),
    )


def test_pooled_entropy_in_bits():
    assert pooled_entropy(np.array([1.0, 1, 1, 1])) == 2.0
    assert pooled_entropy(np.array([5.0])) == 0.0
    assert pooled_entropy(np.array([0.0, 0])) == 0.0
    counts = np.array([3.0, 0, 1, 4])
    assert pooled_entropy(counts) == pytest.approx(scipy_entropy(counts, base=2))


def test_entropy_of_a_draw_equals_its_definition():
    rng = np.random.default_rng(0)
    codes = random_codes(20, rng)
    draws = np.stack([rng.choice(20, 7, replace=False) for _ in range(30)])
    expected = [scipy_entropy(codes[draw].sum(axis=0), base=2) for draw in draws]
    np.testing.assert_allclose(drawn_entropies(codes, draws), expected)


def test_a_draw_has_one_random_occurrence_of_each_of_its_patients():
    patient = np.array([2, 0, 1, 1, 3, 2, 1, 0])
    rows, drawn = patient_draws(patient, 3, 4000, stream(0))
    np.testing.assert_array_equal(patient[rows], drawn)
    assert all(len(set(each)) == 3 for each in drawn.tolist())
    np.testing.assert_allclose(np.bincount(drawn.ravel()) / 4000, 0.75, atol=0.04)
    # each occurrence of patient 1 as often as the others
    np.testing.assert_allclose(np.bincount(rows.ravel())[[2, 3, 6]] / 1000, 1, atol=0.12)


def test_the_estimate_is_the_mean_over_all_draws_and_the_interval_its_jackknife(monkeypatch):
    codes = random_codes(6, np.random.default_rng(1))
    patient = np.arange(6)
    every = np.array(list(combinations(range(6), 3)))
    values = drawn_entropies(codes, every)
    left = np.array([values[(every != out).all(1)].mean() for out in range(6)])
    error = np.sqrt(5 / 6 * ((left - left.mean()) ** 2).sum())
    monkeypatch.setattr("medsae.polysemy.entropy.N_DRAWS", 40_000)
    estimate, low, high = rarefied_entropy(codes, patient, 3, stream(0))
    assert estimate == pytest.approx(values.mean(), abs=0.005)
    assert (high - low) / 2 == pytest.approx(2.5705818 * error, rel=0.03)  # t(0.975, 5)


def test_occurrences_without_latents_have_no_entropy():
    empty = csr_array((3, 5), dtype=np.float32)
    np.testing.assert_array_equal(drawn_entropies(empty, np.array([[0, 1], [1, 2]])), [0, 0])


def test_published_columns_equal_the_published_definition(measure):
    table, result = measure({"lemma": "a", "strength": 0.3}, {"lemma": "c", "kind": "control"})
    assert result.columns == list(ENTROPY)
    for row in result.iter_rows(named=True):
        own = table.filter(pl.col("lemma") == row["lemma"])
        if row["sense"] is not None:
            own = own.filter(pl.col("sense") == row["sense"])
        counts = own["latent_ids"].explode().value_counts()["count"].to_numpy()
        assert row["n_unique_latents"] == len(counts)
        assert row["entropy"] == pytest.approx(scipy_entropy(counts, base=2))
        assert row["normalized_entropy"] == pytest.approx(row["entropy"] / np.log2(len(counts)))


def test_rarefied_entropy_does_not_grow_with_the_number_of_occurrences(measure):
    _, result = measure({"lemma": "few", "n_patients": 20}, {"lemma": "many", "n_patients": 200})
    few, many = (result.filter(pl.col("lemma") == lemma) for lemma in ("few", "many"))
    assert many["entropy"].min() > few["entropy"].max()
    assert many["rarefied_entropy"].mean() == pytest.approx(
        few["rarefied_entropy"].mean(), abs=0.15
    )
    assert result["rarefied_n"].n_unique() == 1
    assert result["rarefied_n"][0] == result["n_patients"].min() // 2


def test_a_sense_with_fewer_latents_of_its_own_has_lower_entropy(measure):
    _, result = measure({"lemma": "wide"}, {"lemma": "narrow", "strength": 0.95})
    wide, narrow = (result.filter(pl.col("lemma") == lemma) for lemma in ("wide", "narrow"))
    assert narrow["rarefied_entropy_high"].max() < wide["rarefied_entropy_low"].min()
    assert result["rarefied_normalized"].is_between(0, 1).all()
    np.testing.assert_allclose(
        result["rarefied_normalized"], result["rarefied_entropy"] / np.log2(250), rtol=1e-9
    )


def test_too_few_occurrences_are_a_reason(measure):
    _, result = measure({"lemma": "a"}, {"lemma": "tiny", "n_patients": 2})
    tiny = result.filter(pl.col("lemma") == "tiny", pl.col("n_occurrences") < 5)
    assert len(tiny)
    assert tiny["rarefied_entropy"].is_null().all()
    assert tiny["reason"].str.contains("fewer than 5").all()


def test_a_dictionary_without_living_latents_is_a_reason(measure):
    _, result = measure({"lemma": "a"}, alive=1)
    assert result["reason"].str.contains("alive").all()


def test_row_order_does_not_matter(measure, write_latents, tmp_path, statistics):
    table, result = measure({"lemma": "a"}, {"lemma": "b", "kind": "control"})
    path = write_latents(table.sample(fraction=1, shuffle=True, seed=2), "shuffled.parquet")
    assert result.equals(measure_entropy(path, tmp_path / "calibration.parquet", statistics))


def test_patients_that_use_a_term_often_do_not_lower_its_entropy(measure):
    _, result = measure(
        {"lemma": "even", "per_patient": (1,), "n_patients": 60, "patient_share": 0.9},
        {"lemma": "uneven", "per_patient": (8,), "n_patients": 60, "patient_share": 0.9},
    )
    even, uneven = (result.filter(pl.col("lemma") == lemma) for lemma in ("even", "uneven"))
    assert even["rarefied_entropy"].mean() == pytest.approx(
        uneven["rarefied_entropy"].mean(), abs=0.1
    )


def test_too_few_patients_are_a_reason(measure):
    _, result = measure({"lemma": "a"}, {"lemma": "b", "n_patients": 9, "per_patient": (8,)})
    few = result.filter(pl.col("lemma") == "b", pl.col("n_occurrences") >= 5)
    assert few["reason"].str.contains(f"patients, fewer than {MIN_PATIENTS}").all()
    assert few["rarefied_entropy"].is_null().all()
    # they do not decide how many patients the others are cut to
    assert result.filter(pl.col("lemma") == "a")["rarefied_n"].min() >= MIN_PATIENTS // 2
