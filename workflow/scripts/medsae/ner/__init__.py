"""Entity spans in the notes, with GLiNER: adapted, recognised, merged, evaluated.

Importing this package loads neither torch nor gliner; the modules that need them
(``adapt``, ``model``, ``recognise``) are imported by name.
"""

from medsae.ner.columns import SPAN_KEYS, TABLE_COLUMNS
from medsae.ner.evaluate import evaluate_spans
from medsae.ner.spans import merge_spans, read_spans, write_spans

__all__ = [
    "SPAN_KEYS",
    "TABLE_COLUMNS",
    "evaluate_spans",
    "merge_spans",
    "read_spans",
    "write_spans",
]
