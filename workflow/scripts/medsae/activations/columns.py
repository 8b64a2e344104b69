"""Columns of the tables of this room."""

import pyarrow as pa

TOKENS = pa.schema(
    [
        ("doc_id", pa.string()),
        ("patient_id", pa.string()),
        ("token_index", pa.uint32()),
        ("token_id", pa.int32()),
        ("char_start", pa.uint32()),
        ("char_end", pa.uint32()),
    ]
)
"""A row per token, in document order. ``token_index`` counts within the document from 0;
``char_start`` and ``char_end`` (exclusive) are Python string indices into its text.
Row i belongs to row i of the activation shard of the same name."""

ALIGNED_SPANS = pa.schema(
    [
        ("doc_id", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("entity_group", pa.string()),
        ("score", pa.float64()),
        ("token_positions", pa.list_(pa.uint32())),
        ("token_start", pa.int64()),
        ("token_end", pa.int64()),
        ("token_count", pa.int64()),
    ]
)
"""An entity span (character offsets) and its tokens: their indices in the document, as a
list and as a range (end exclusive). The JSONL file has the span's text besides."""

LOCATED = ("shard", "row_start", "row_end", "token_positions")
"""What location adds to an occurrence: its shard, its rows there (end exclusive) and its
tokens' indices in the document."""
