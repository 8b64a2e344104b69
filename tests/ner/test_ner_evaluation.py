"""Precision, recall and F1 against numbers worked out by hand."""

import math

import polars as pl
import pytest

from medsae.ner import evaluate_spans
from medsae.ner.columns import EVALUATION_COLUMNS

NAMES = ["doc_id", "start", "end", "entity_group"]


def frame(rows):
    return pl.DataFrame(rows, schema=NAMES, orient="row")


GOLD = frame(
    [("a", 0, 5, "x"), ("a", 10, 15, "x"), ("b", 0, 4, "y"), ("b", 8, 9, "x"), ("gone", 0, 1, "x")]
)
PREDICTED = frame(
    [("a", 0, 5, "x"), ("a", 12, 20, "x"), ("b", 0, 4, "x"), ("b", 8, 9, "x"), ("c", 1, 2, "y")]
)


def row(scores, label, matching):
    return scores.row(
        by_predicate=(pl.col("label") == label) & (pl.col("matching") == matching), named=True
    )


def test_scores_are_those_worked_out_by_hand():
    scores = evaluate_spans(PREDICTED, GOLD, ["a", "b", "c"], 200, seed=0)
    assert tuple(scores.columns) == EVALUATION_COLUMNS
    # exact: 2 of 5 predicted are right, 2 of 4 gold found (the fifth is in no studied note)
    micro = row(scores, "all labels", "exact")
    assert (micro["n_gold"], micro["n_predicted"]) == (4, 5)
    assert (micro["precision"], micro["recall"]) == (2 / 5, 2 / 4)
    assert micro["f1"] == pytest.approx(4 / 9)
    # overlap: the shifted span of note a counts too; the wrong label of note b never does
    micro = row(scores, "all labels", "overlap")
    assert (micro["precision"], micro["recall"]) == (3 / 5, 3 / 4)
    only_x = row(scores, "x", "overlap")
    assert (only_x["precision"], only_x["recall"]) == (3 / 4, 1.0)
    missed = row(scores, "y", "exact")
    assert (missed["precision"], missed["recall"], missed["f1"]) == (0.0, 0.0, 0.0)


def test_intervals_hold_the_estimate_and_depend_on_the_seed_alone():
    documents = [f"d{i}" for i in range(40)]
    gold = frame([(doc, 0, 3, "x") for doc in documents])
    predicted = frame([(doc, 0 if i % 4 else 1, 3, "x") for i, doc in enumerate(documents)])
    scores = evaluate_spans(predicted, gold, documents, 500, seed=1)
    exact = row(scores, "x", "exact")
    assert exact["f1"] == 0.75
    assert 0.55 < exact["f1_low"] < 0.75 < exact["f1_high"] < 0.95
    shuffled = evaluate_spans(predicted.reverse(), gold.reverse(), documents, 500, seed=1)
    assert shuffled.equals(scores)


def test_a_label_never_predicted_has_no_precision_but_a_zero_f1():
    scores = evaluate_spans(frame([]).cast(GOLD.schema), GOLD, ["a", "b"], 99, seed=0)
    micro = row(scores, "all labels", "exact")
    assert math.isnan(micro["precision"])
    assert (micro["recall"], micro["f1"]) == (0.0, 0.0)


def test_a_repeated_span_counts_once():
    scores = evaluate_spans(pl.concat([GOLD, GOLD]), GOLD, ["a", "b"], 99, seed=0)
    assert row(scores, "all labels", "exact")["precision"] == 1.0
