"""Predicted against gold spans: precision, recall and F1 per label and over all labels.

``exact``: same document, offsets and label. ``overlap``: same document and label, at least one
character in common; precision counts the predicted spans that meet a gold span, recall the
gold spans that meet a predicted one. Intervals are percentile bootstrap over documents.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medsae.ner.columns import EVALUATION_COLUMNS
from medsae.statistics import cluster_weights, percentile_interval, stream

MICRO = "all labels"
KEY = ["doc_id", "start", "end", "entity_group"]
COUNTS = ["right_predicted", "n_predicted", "right_gold", "n_gold"]
WEIGHTS_IN_MEMORY = 20_000_000


def evaluate_spans(
    predicted: pl.DataFrame,
    gold: pl.DataFrame,
    documents: list[str],
    n_bootstrap: int,
    seed: int,
) -> pl.DataFrame:
    """Compare spans (columns doc_id, start, end, entity_group) within ``documents``.

    ``documents`` are all documents that were searched, those without any span included;
    spans of other documents are left out. Returns ``EVALUATION_COLUMNS``, one row per label
    and kind of matching, the row over all labels first. A share of nothing is NaN.
    """
    index = pl.DataFrame({"doc_id": documents}, schema={"doc_id": pl.String}).with_row_index("doc")
    sides = _deduplicated(predicted, index), _deduplicated(gold, index)
    labels = sorted(set(sides[0]["entity_group"]) | set(sides[1]["entity_group"]))
    rows = []
    for matching in ("exact", "overlap"):
        counts = _counts(*sides, labels, len(documents), matching)
        with_micro = np.concatenate([counts.sum(axis=1, keepdims=True), counts], axis=1)
        totals = with_micro.sum(axis=0).astype(np.float64)  # [1 + labels, 4]
        low, high = _intervals(with_micro, n_bootstrap, seed)
        precision, recall, f1 = _scores(totals)
        for i, label in enumerate([MICRO, *labels]):
            sizes = totals[i, [3, 1]].astype(int).tolist()
            rows.append((label, matching, precision[i], recall[i], f1[i], low[i], high[i], *sizes))
    return pl.DataFrame(rows, schema=list(EVALUATION_COLUMNS), orient="row")


def _deduplicated(spans: pl.DataFrame, index: pl.DataFrame) -> pl.DataFrame:
    known = spans.select(
        "doc_id", pl.col("start").cast(pl.Int64), pl.col("end").cast(pl.Int64), "entity_group"
    )
    return known.unique().join(index, on="doc_id").sort(KEY)


def _counts(
    predicted: pl.DataFrame, gold: pl.DataFrame, labels: list[str], n_documents: int, matching: str
) -> NDArray[np.int64]:
    """Counts [documents, labels, ``COUNTS``]."""
    if matching == "exact":
        right = predicted.join(gold, on=KEY, how="semi"), gold.join(predicted, on=KEY, how="semi")
    else:
        right = _meeting(predicted, gold), _meeting(gold, predicted)
    counts = np.zeros((n_documents, len(labels), len(COUNTS)), dtype=np.int64)
    position = {label: i for i, label in enumerate(labels)}
    for column, frame in enumerate((right[0], predicted, right[1], gold)):
        where = frame["entity_group"].replace_strict(position, return_dtype=pl.Int64)
        cell = frame["doc"].cast(pl.Int64).to_numpy() * len(labels) + where.to_numpy()
        n_cells = n_documents * len(labels)
        counts[..., column] = np.bincount(cell, minlength=n_cells).reshape(n_documents, -1)
    return counts


def _meeting(spans: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """Those of ``spans`` that share a character with one of ``others`` of the same label."""
    pairs = spans.join(others, on=["doc_id", "entity_group"], suffix="_other")
    meet = (pl.col("start") < pl.col("end_other")) & (pl.col("start_other") < pl.col("end"))
    return pairs.filter(meet).select(*KEY, "doc").unique()


def _scores(
    counts: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1 from counts [..., ``COUNTS``]."""
    right_predicted, n_predicted, right_gold, n_gold = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = right_predicted / n_predicted, right_gold / n_gold
        both = precision + recall
        f1 = np.where(both > 0, 2 * precision * recall / both, 0.0)
    # No prediction at all for a label that has gold spans is a plain miss, not a gap.
    f1 = np.where((n_predicted == 0) & (n_gold == 0), np.nan, f1)
    return precision, recall, f1


def _intervals(
    counts: NDArray[np.int64], n_bootstrap: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n_documents, n_rows, _ = counts.shape
    flat = counts.reshape(n_documents, -1).astype(np.float64)
    rng = stream(seed, "evaluate_ner")
    block = max(1, WEIGHTS_IN_MEMORY // max(n_documents, 1))
    resampled = []
    for start in range(0, n_bootstrap, block):
        weights = cluster_weights(n_documents, min(block, n_bootstrap - start), rng)
        resampled.append(_scores((weights @ flat).reshape(-1, n_rows, len(COUNTS)))[2])
    return percentile_interval(np.concatenate(resampled))
