import numpy as np
import polars as pl
import pytest

from medsae.polysemy.sparse import cap_by_patient, code_matrix, read_lemmas, sense_sample, source_of
from medsae.statistics import stream


def test_code_matrix_keeps_values_and_their_order():
    ids = pl.Series([[5, 2], [], [0]], dtype=pl.List(pl.Int32))
    values = pl.Series([[3.0, 1.0], [], [2.0]], dtype=pl.List(pl.Float32))
    codes = code_matrix(ids, values, 7)
    np.testing.assert_array_equal(
        codes.toarray(), [[0, 0, 1, 0, 0, 3, 0], [0] * 7, [2, 0, 0, 0, 0, 0, 0]]
    )
    assert codes.indices.tolist() == [5, 2, 0]
    assert codes.indices.dtype == codes.indptr.dtype == np.int32


def test_code_matrix_of_nothing():
    empty = pl.Series([[], []], dtype=pl.List(pl.Int32))
    assert code_matrix(empty, empty.cast(pl.List(pl.Float32))).shape == (2, 0)


def test_lemmas_come_in_order_with_their_own_codes(plant, write_latents):
    table = plant({"lemma": "b"}, {"lemma": "a", "kind": "control"})
    path = write_latents(table)
    lemmas = list(read_lemmas(path))
    assert [(each.lemma, each.kind) for each in lemmas] == [("a", "control"), ("b", "polysemous")]
    for lemma in lemmas:
        keys = lemma.table.select("patient_id", "doc_id", "char_start")
        assert keys.equals(keys.sort("patient_id", "doc_id", "char_start"))
        rows = table.filter(pl.col("lemma") == lemma.lemma).sort("occurrence_id")
        place = lemma.table["occurrence_id"].arg_sort()
        dense = lemma.codes.toarray()[place.to_numpy()]
        for row, ids, values in zip(dense, rows["latent_ids"], rows["z_values"], strict=True):
            assert sorted(np.flatnonzero(row)) == sorted(ids)
            np.testing.assert_array_equal(row[ids.to_numpy()], values.to_numpy())
    assert [each.lemma for each in read_lemmas(path, kinds=("polysemous",))] == ["b"]
    assert source_of(path) == {"model": "tiny", "layer": 3, "sae": "topk"}


def test_codes_do_not_depend_on_row_order(plant, write_latents):
    table = plant({"lemma": "a"})
    one = next(read_lemmas(write_latents(table)))
    shuffled = table.sample(fraction=1, shuffle=True, seed=1)
    other = next(read_lemmas(write_latents(shuffled, "shuffled.parquet")))
    assert one.table.equals(other.table)
    assert (one.codes != other.codes).nnz == 0


def test_rare_and_unknown_senses_are_left_out(plant, write_latents):
    table = plant({"lemma": "a", "senses": ("x", "y", "z"), "n_patients": 60})
    rare = (pl.col("sense") == "z") & (pl.col("occurrence_id").rank().over("sense") > 3)
    table = table.with_columns(pl.when(~rare).then("sense").alias("sense"))
    lemma = next(read_lemmas(write_latents(table)))
    sample = sense_sample(lemma, 5)
    assert sample.senses == ("x", "y")
    assert sample.reason is None
    assert sample.latents.table["sense"].to_list() == [sample.senses[c] for c in sample.label]


def test_a_sense_of_one_patient_is_no_sense_to_compare(plant, write_latents):
    table = plant({"lemma": "a"}).with_columns(
        pl.when(pl.col("patient_id") == "p001")
        .then(pl.lit("two"))
        .otherwise(pl.lit("one"))
        .alias("sense")
    )
    sample = sense_sample(next(read_lemmas(write_latents(table))), 1)
    assert sample.senses == ("one",)
    assert "two patients" in sample.reason


def test_controls_have_no_sense_sample(plant, write_latents):
    lemma = next(read_lemmas(write_latents(plant({"lemma": "a", "kind": "control"}))))
    with pytest.raises(ValueError, match="not a polysemous"):
        sense_sample(lemma, 1)


def test_the_cap_takes_whole_patients(plant, write_latents):
    lemma = next(read_lemmas(write_latents(plant({"lemma": "a", "n_patients": 50}))))
    assert cap_by_patient(lemma, 10_000, stream(0)).all()
    kept = cap_by_patient(lemma, 40, stream(0))
    assert 30 <= kept.sum() <= 40
    patients = lemma.table["patient_id"].to_numpy()
    assert not set(patients[kept]) & set(patients[~kept])
