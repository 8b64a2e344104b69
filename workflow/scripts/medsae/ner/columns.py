"""Names of the keys and columns that this room writes."""

import polars as pl
import pyarrow as pa

SPAN_KEYS = ("doc_id", "start", "end", "text", "entity_group", "score")
"""Keys of one line of ``ner_spans.jsonl``. Offsets are characters of the note, end exclusive."""

TABLE_COLUMNS = ("doc_id", "start", "end", "entity_group", "score")
"""Columns of ``ner_spans.parquet``: the spans without their text."""

TABLE_SCHEMA = pa.schema(
    [
        ("doc_id", pa.string()),
        ("start", pa.uint32()),
        ("end", pa.uint32()),
        ("entity_group", pa.string()),
        ("score", pa.float32()),
    ]
)

GOLD_SCHEMA = {
    "doc_id": pl.String,
    "start": pl.Int64,
    "end": pl.Int64,
    "entity_group": pl.String,
}
"""Keys read from a file of gold spans; further keys are ignored."""

EVALUATION_COLUMNS = (
    "label",
    "matching",
    "precision",
    "recall",
    "f1",
    "f1_low",
    "f1_high",
    "n_gold",
    "n_predicted",
)

LOSS_COLUMNS = ("step", "phase", "loss", "learning_rate")
