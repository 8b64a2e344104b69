import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import t

from medsae.io import UserError
from medsae.polysemy import retrieval_tables
from medsae.polysemy.columns import RETRIEVAL_BASELINES, RETRIEVAL_DETAIL, RETRIEVAL_SUMMARY
from medsae.polysemy.retrieval_baselines import CONTEXT, read_contexts, residuals
from medsae.polysemy.retrieval_tables import (
    FEW_PATIENTS,
    NOTHING_MOVES,
    measure_retrieval,
    usable_anchors,
)
from medsae.polysemy.splits import halve_patients
from medsae.statistics import holm, mcnemar_exact
from medsae.store import ShardWriter

SETTINGS = {"k_sweep": [5, 20], "n_anchor_sweep": [2, 4]}


@pytest.fixture(scope="module")
def corpus(plant, tmp_path_factory):
    """Occurrences in two shards, activations that hold the sense, notes whose words do."""

    def make(*plans):
        folder = tmp_path_factory.mktemp("retrieval")
        table = plant(*plans).sort("lemma", "occurrence_id")
        table = table.with_columns(
            (pl.int_range(pl.len()) % 2).cast(pl.String).alias("half")
        ).with_columns(("train-0000" + pl.col("half")).alias("shard"))
        row = pl.int_range(pl.len()).over("shard")
        table = table.with_columns(
            row.cast(pl.UInt64).alias("row_start"), (row + 1).cast(pl.UInt64).alias("row_end")
        ).drop("half")
        rng = np.random.default_rng(0)
        paths = []
        for (name,), part in table.group_by("shard", maintain_order=True):
            sense = (part["sense"].fill_null("") == "one").to_numpy()[:, None]
            rows = torch.from_numpy(
                rng.normal(size=(len(part), 6)) + 4 * sense * [1, 0, 0, 0, 0, 0]
            )
            path = folder / f"{name}.safetensors"
            with ShardWriter(path, len(part), 6, torch.bfloat16, {}) as writer:
                writer.write(0, rows.to(torch.bfloat16))
            paths.append(path)
        length = int(table["char_end"].max()) + 200
        notes = []
        for (doc,), part in table.group_by("doc_id", maintain_order=True):
            text = [" "] * length
            for start, sense in part.select("char_start", "sense").iter_rows():
                word = "home" if sense == "one" else "pus"
                text[start : start + 5] = "XXXXX"
                text[start + 5 : start + 5 + len(word)] = word
            notes.append({"doc_id": doc, "text": "".join(text)})
        pl.DataFrame(notes).write_parquet(folder / "notes.parquet", row_group_size=7)
        table.write_parquet(folder / "latents.parquet")
        return table, (folder / "latents.parquet", folder / "notes.parquet", paths)

    return make


@pytest.fixture(scope="module")
def measured(corpus, statistics):
    table, inputs = corpus(
        {"lemma": "a", "strength": 0.4, "n_patients": 60, "mixed_patients": 0.1},
        {"lemma": "b", "n_patients": 60, "mixed_patients": 0.1},
        {"lemma": "few", "n_patients": 8},
        {"lemma": "c", "kind": "control"},
    )
    return table, inputs, *measure_retrieval(*inputs, SETTINGS, statistics)


def test_tables_have_their_columns_and_terms(measured):
    _, _, detail, summary, baselines = measured
    assert detail.columns == list(RETRIEVAL_DETAIL)
    assert summary.columns == list(RETRIEVAL_SUMMARY)
    assert baselines.columns == list(RETRIEVAL_BASELINES)
    assert set(detail["word"]) == {"a", "b"}
    assert detail["rerank_k"].unique().sort().to_list() == [5, 20]


def test_queries_are_test_patients_and_each_counts_once_per_k(measured):
    table, _, detail, summary, _ = measured
    for (_, word), part in detail.group_by("rerank_k", "word"):
        assert part["occurrence_id"].n_unique() == len(part)
        own = table.filter(pl.col("lemma") == word)
        share = part["patient_id"].n_unique() / own["patient_id"].n_unique()
        assert 0.35 < share < 0.65
    senses = table.select("occurrence_id", "sense")
    joined = detail.join(senses, on="occurrence_id")
    assert (joined["query_sense"] == joined["sense"]).all()
    assert summary["n"].unique().to_list() == [len(detail) // 2]


def test_no_patient_is_on_both_sides_whatever_the_term(measured, monkeypatch, statistics):
    """The patients of all terms are the same 60: as queries and as candidates they are on one."""
    _, inputs, detail, *_ = measured
    seen = {"development": set(), "test": set()}
    choose, judge = retrieval_tables.choose_settings, retrieval_tables.judge_pool

    def choosing(development, *arguments):
        sides = list(development)
        for latents, _ in sides:
            seen["development"] |= set(latents.table["patient_id"])
        return choose(sides, *arguments)

    def judging(latents, *arguments):
        seen["test"] |= set(latents.table["patient_id"])
        return judge(latents, *arguments)

    monkeypatch.setattr(retrieval_tables, "choose_settings", choosing)
    monkeypatch.setattr(retrieval_tables, "judge_pool", judging)
    measure_retrieval(*inputs, SETTINGS, statistics)
    assert set(detail["patient_id"]) <= seen["test"]
    assert len(seen["development"]) > 20 and len(seen["test"]) > 20
    assert not seen["development"] & seen["test"]


def test_halves_hold_every_sense_even_of_a_rare_term():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(200), 6)
    cell = rng.integers(0, 28, len(patient))
    # two more senses, each in four patients only
    patient = np.concatenate([patient, [3, 50, 90, 120, 4, 51, 91, 121]])
    cell = np.concatenate([cell, [28] * 4, [29] * 4])
    first = halve_patients(patient, cell, np.random.default_rng(1))
    assert 80 <= first.sum() <= 120
    for each in range(30):
        own = np.unique(patient[cell == each])
        assert abs(first[own].mean() - 0.5) <= 0.25


def test_where_no_first_hit_changes_there_is_no_p(corpus, statistics):
    """Each sense's latents never fire at the other: P@1 is 1 before and after."""
    _, inputs = corpus({"lemma": "a", "strength": 1.0, "n_patients": 60, "mixed_patients": 0.0})
    _, summary, _ = measure_retrieval(*inputs, SETTINGS, statistics)
    assert (summary["full_P@1"] == 1).all() and (summary["rerank_P@1"] == 1).all()
    for name in ("p_value", "p_clustered", "p_adjusted"):
        assert summary[name].null_count() == len(summary)
    assert (summary["reason"] == NOTHING_MOVES).all()


def test_summary_equals_what_the_detail_says(measured):
    _, _, detail, summary, _ = measured
    for row in summary.iter_rows(named=True):
        part = detail.filter(pl.col("rerank_k") == row["k"])
        assert part["n_anchor"].unique().to_list() == [row["n_anchor"]]
        assert row["delta_P@1_mean"] == pytest.approx(part["delta_P@1"].mean())
        assert row["delta_MAP_mean"] == pytest.approx(part["delta_AP"].mean())
        better, worse = (int((part["delta_P@1"] * sign > 0).sum()) for sign in (1, -1))
        assert row["p_value"] == pytest.approx(mcnemar_exact(better, worse))
        assert row["delta_MAP_low"] <= row["delta_MAP_mean"] <= row["delta_MAP_high"]
        assert row["delta_P@1_ci"] == pytest.approx(
            (row["delta_P@1_high"] - row["delta_P@1_low"]) / 2
        )
        freedom = row["n_patients"] - 1
        error = row["delta_P@1_ci"] / t.ppf(0.975, freedom)
        p = 2 * t.sf(abs(row["delta_P@1_mean"]) / error, freedom)
        assert row["p_clustered"] == pytest.approx(p)
    np.testing.assert_allclose(summary["p_adjusted"], holm(summary["p_clustered"]))
    assert summary["chosen"].sum() == 1
    best = summary["development_delta_MAP"].arg_max()
    assert summary["chosen"].to_list().index(True) == best


def test_baselines_know_what_they_should_know(measured):
    _, _, _, _, baselines = measured
    by = {(row["word"], row["method"]): row for row in baselines.iter_rows(named=True)}
    for word in ("a", "b", "all"):
        # one half random, both senses about as frequent
        assert by[word, "random"]["p_at_1"] == pytest.approx(0.5, abs=0.1)
        assert by[word, "majority_sense"]["p_at_1"] < 0.75
        assert by[word, "tfidf_context"]["p_at_1"] > 0.95
        assert by[word, "raw_residual"]["p_at_1"] > 0.8
        assert by[word, "full"]["delta_map"] == 0.0
        assert by[word, "rerank"]["delta_map"] == pytest.approx(
            by[word, "rerank"]["map"] - by[word, "full"]["map"]
        )
    assert by["a", "full"]["map_low"] > by["b", "full"]["map"]
    assert {"without_anchors", "without_random", "raw_residual_centred"} <= {m for _, m in by}
    # the words that tell the senses apart stand behind the term
    assert by["all", "tfidf_left_context"]["p_at_1"] < 0.9


def test_row_order_does_not_matter(measured, tmp_path, statistics):
    table, (_, notes, shards), *tables = measured
    shuffled = tmp_path / "shuffled.parquet"
    table.sample(fraction=1, shuffle=True, seed=6).write_parquet(shuffled)
    again = measure_retrieval(shuffled, notes, shards[::-1], SETTINGS, statistics)
    for one, other in zip(tables, again, strict=True):
        assert one.equals(other)


def assert_not_estimable(tables, reason):
    detail, summary, baselines = tables
    assert detail.is_empty() and baselines.is_empty()
    assert detail.columns == list(RETRIEVAL_DETAIL)
    assert summary.columns == list(RETRIEVAL_SUMMARY)
    assert baselines.columns == list(RETRIEVAL_BASELINES)
    (row,) = summary.to_dicts()
    assert row["k"] is None and row["model"] == "tiny" and reason in row["reason"]


def test_terms_that_take_no_part_are_named_with_the_reason(corpus, statistics, tmp_path, caplog):
    table, (_, *others) = corpus(
        {"lemma": "a", "n_patients": 60},
        {"lemma": "few", "n_patients": 8, "per_patient": (3,), "mixed_patients": 1.0},
        {"lemma": "one", "senses": ("one",), "n_patients": 30},
        {"lemma": "rare", "n_patients": 4, "per_patient": (12,)},
        {"lemma": "c", "kind": "control"},
    )
    # one patient of each sense on each side
    rare = pl.when(pl.col("patient_id").is_in(["p000", "p001"])).then(pl.lit("one"))
    sense = pl.when(pl.col("lemma") == "rare").then(rare.otherwise(pl.lit("two")))
    path = tmp_path / "latents.parquet"
    table.with_columns(sense.otherwise("sense").alias("sense")).write_parquet(path)
    detail, *_ = measure_retrieval(path, *others, SETTINGS, statistics)
    assert detail["word"].unique().to_list() == ["a"]
    few, one, alone = (text for text in caplog.messages if "leaves out" in text)
    assert "'few': 24 occurrences of its senses, fewer than 30" in few
    assert "'one': fewer than two senses" in one
    assert "'rare': no two test patients share a sense" in alone


def test_without_any_term_the_tables_say_why(corpus, statistics):
    _, inputs = corpus({"lemma": "few", "n_patients": 6})
    assert_not_estimable(measure_retrieval(*inputs, SETTINGS, statistics), "30 occurrences")


def test_few_test_patients_give_no_p(corpus, statistics):
    _, inputs = corpus({"lemma": "a", "n_patients": 8, "per_patient": (8,), "mixed_patients": 1.0})
    _, summary, _ = measure_retrieval(*inputs, SETTINGS, statistics)
    for name in ("delta_P@1_low", "p_clustered", "p_adjusted"):
        assert summary[name].null_count() == len(summary)
    assert summary["delta_P@1_mean"].null_count() == 0
    assert (summary["reason"] == FEW_PATIENTS).all()


def test_without_a_query_that_has_an_answer_the_tables_say_why(corpus, statistics, tmp_path):
    # two patients of each sense: one develops, the other tests, and finds nobody of its sense
    table, (_, notes, shards) = corpus({"lemma": "a", "n_patients": 4, "per_patient": (12,)})
    sense = pl.when(pl.col("patient_id").is_in(["p000", "p001"])).then(pl.lit("one"))
    path = tmp_path / "latents.parquet"
    table.with_columns(sense.otherwise(pl.lit("two")).alias("sense")).write_parquet(path)
    tables = measure_retrieval(path, notes, shards, SETTINGS, statistics)
    assert_not_estimable(tables, "whose sense other patients share")


def test_anchors_that_would_leave_no_latent_are_not_studied(measured, statistics):
    _, inputs, *_ = measured
    latents = pl.scan_parquet(inputs[0])
    assert usable_anchors(latents, [2, 15, 16, 40]) == [2, 15]
    some = latents.with_columns(pl.col("latent_ids").list.head(3 + pl.col("occurrence_id") % 50))
    assert usable_anchors(some, [3, 4, 5]) == [3, 4]
    tables = measure_retrieval(*inputs, SETTINGS | {"n_anchor_sweep": [16]}, statistics)
    assert_not_estimable(tables, "n_anchor")


def test_contexts_leave_the_term_out(tmp_path):
    text = "🙂" * 150 + "TERM" + "é" * 150
    pl.DataFrame({"doc_id": ["x", "d"], "text": ["", text]}).write_parquet(tmp_path / "n.parquet")
    occurrences = pl.DataFrame(
        {"occurrence_id": [3], "doc_id": ["d"], "char_start": [150], "char_end": [154]}
    )
    row = read_contexts(tmp_path / "n.parquet", occurrences).row(0, named=True)
    assert row == {"occurrence_id": 3, "left": "🙂" * CONTEXT, "right": "é" * CONTEXT}


def test_residuals_are_those_of_the_last_token(tmp_path):
    matrix = torch.arange(12.0).reshape(6, 2)
    for name in ("a", "b"):
        with ShardWriter(tmp_path / f"{name}.safetensors", 6, 2, torch.float32, {}) as writer:
            writer.write(0, matrix + (100 if name == "b" else 0))
    table = pl.DataFrame({"shard": ["b", "a", "b"], "row_end": [2, 6, 1]})
    shards = {name: tmp_path / f"{name}.safetensors" for name in ("a", "b")}
    np.testing.assert_array_equal(residuals(table, shards), [[102, 103], [10, 11], [100, 101]])
    with pytest.raises(UserError, match="no activation shard is named 'b'"):
        residuals(table, {"a": shards["a"]})
