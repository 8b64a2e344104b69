"""Words of a note as GLiNER counts them, and the chunks that cover them.

A chunk is a range of words, so that every offset stays an offset into the whole note.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Splitter = Callable[[str], Iterable[tuple[str, int, int]]]


@dataclass(frozen=True)
class Words:
    """Character offsets of the words of one note: ``text[starts[i]:ends[i]]``."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def texts(self, text: str, begin: int, end: int) -> list[str]:
        """The words ``begin`` to ``end`` (exclusive) of ``text``."""
        starts, ends = self.starts[begin:end].tolist(), self.ends[begin:end].tolist()
        return [text[start:stop] for start, stop in zip(starts, ends, strict=True)]


def split_words(text: str, splitter: Splitter) -> Words:
    """Split ``text`` with GLiNER's own word splitter."""
    bounds = np.array([(start, end) for _, start, end in splitter(text)], dtype=np.int64)
    bounds = bounds.reshape(-1, 2)
    return Words(bounds[:, 0], bounds[:, 1])


def chunk_bounds(
    n_words: int,
    max_words: int,
    overlap: int,
    word_tokens: NDArray[np.int64] | None = None,
    max_tokens: int = 0,
) -> list[tuple[int, int]]:
    """Ranges (begin, end) of words that together cover all of them, in order.

    A chunk holds at most ``max_words`` words and, if ``word_tokens`` [n_words] says how many
    subword tokens each word has, at most ``max_tokens`` tokens: what goes beyond an encoder's
    positions is cut off without a word. Neighbours share ``overlap`` words, or half a chunk
    where the tokens leave room for less. A single word above ``max_tokens`` is a chunk alone.
    """
    if not 0 <= overlap < max_words:
        raise ValueError(f"overlap {overlap} is not below max_words {max_words}")
    tokens_before = None if word_tokens is None else np.concatenate([[0], np.cumsum(word_tokens)])
    bounds = []
    begin = 0
    while begin < n_words:
        end = min(begin + max_words, n_words)
        if tokens_before is not None:
            fits = np.searchsorted(tokens_before, tokens_before[begin] + max_tokens, "right") - 1
            end = min(end, max(int(fits), begin + 1))
        bounds.append((begin, end))
        if end == n_words:
            break
        begin = max(end - min(overlap, (end - begin) // 2), begin + 1)
        if tokens_before is not None:  # leave room for the next word, or no ground is gained
            room = np.searchsorted(tokens_before, tokens_before[end + 1] - max_tokens, "left")
            begin = max(begin, min(int(room), end))
    return bounds
