"""Cut documents into windows of the model's context, and windows into batches.

Window i of a document starts at token i·stride and holds up to ``ctx_len`` tokens. A token
lies in several windows when stride < ctx_len; its activation is taken from the first of
them, where it has the most left context:

    window 0 keeps its tokens [0, ctx_len), window i ≥ 1 keeps [ctx_len − stride, ctx_len).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Windows:
    """Windows over the rows of a token table; each array int64 [n_windows]."""

    start: np.ndarray
    """First row that the model reads."""
    kept: np.ndarray
    """First row whose activation is taken."""
    stop: np.ndarray
    """One past the last row, of both."""

    def __len__(self) -> int:
        return len(self.start)


def plan_windows(counts: np.ndarray, ctx_len: int, stride: int | None = None) -> Windows:
    """Windows of documents with ``counts`` [n_documents] tokens that follow one another.

    Every row is kept by exactly one window. Raises ``ValueError`` unless
    1 ≤ stride ≤ ctx_len.
    """
    stride = ctx_len if stride is None else stride
    if not 1 <= stride <= ctx_len:
        raise ValueError(f"stride {stride} must lie between 1 and ctx_len {ctx_len}")
    counts = np.asarray(counts, dtype=np.int64)
    first_row = np.cumsum(counts) - counts
    beyond = np.maximum(counts - ctx_len, 0)
    n_windows = np.where(counts > 0, 1 + -(-beyond // stride), 0)
    document = np.repeat(np.arange(len(counts)), n_windows)
    number = np.arange(n_windows.sum()) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    start = number * stride
    kept = np.where(number > 0, start + ctx_len - stride, 0)
    stop = np.minimum(start + ctx_len, counts[document])
    offset = first_row[document]
    return Windows(offset + start, offset + kept, offset + stop)


def pack_batches(lengths: np.ndarray, tokens_per_batch: int) -> Iterator[np.ndarray]:
    """Groups of windows of similar length, as index arrays into ``lengths`` [n_windows].

    ``lengths`` count special tokens. The longest window times the size of its group stays
    within ``tokens_per_batch``, except for a single window that is longer. Longest first:
    too little memory shows at once.
    """
    order = np.argsort(-lengths, kind="stable")
    begin = 0
    while begin < len(order):
        size = max(1, tokens_per_batch // int(lengths[order[begin]]))
        yield order[begin : begin + size]
        begin += size
