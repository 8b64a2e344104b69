"""Annotated notes as training examples: chunks of words with the spans inside them.

Nothing but the texts and the spans is held for the whole corpus: a chunk is cut when it is
drawn.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medsae.io import UserError
from medsae.ner.words import Splitter, chunk_bounds, split_words

logger = logging.getLogger("medsae")

CHUNKS_SHUFFLED = 16
"""Batches drawn ahead, so that chunks of similar length can share one."""


@dataclass(frozen=True)
class Example:
    """One chunk. ``spans`` are (first word, last word inclusive, label number).

    Words in ``unknown`` belong to a gold span that the chunk cannot show whole; no span that
    holds one of them says anything.
    """

    words: list[str]
    spans: list[tuple[int, int, int]]
    unknown: list[int]


@dataclass
class SpanCounts:
    """What became of the gold spans of the notes drawn so far."""

    kept: int = 0
    widened: int = 0
    too_long: int = 0
    without_words: int = 0


class AnnotatedNotes:
    """Notes and their gold spans, as (first word, last word, label number) when drawn.

    A span that begins or ends within a word is widened to whole words; one longer than
    ``max_width`` words is left out. ``counts`` says how many.
    """

    def __init__(
        self,
        notes: pl.DataFrame,
        spans: pl.DataFrame,
        labels: list[str],
        splitter: Splitter,
        max_width: int,
        spans_path: str | Path,
    ) -> None:
        """``notes`` have columns doc_id, text; ``spans`` doc_id, start, end, entity_group.

        Raises ``UserError`` for spans of unknown notes or beyond the end of their note, and
        if no span has one of ``labels``.
        """
        notes = notes.select("doc_id", "text").with_row_index("note")
        lengths = notes.select("doc_id", "note", length=pl.col("text").str.len_chars())
        placed = spans.join(lengths, on="doc_id", how="left", maintain_order="left")
        _refuse_first(
            placed, pl.col("note").is_null(), "names a note that is not there", spans_path
        )
        _refuse_first(placed, pl.col("end") > pl.col("length"), "ends beyond its note", spans_path)
        wanted = placed.filter(pl.col("entity_group").is_in(labels))
        if wanted.is_empty():
            raise UserError(
                f"span file {spans_path}: no span has one of the labels of ner.labels; make the "
                "labels agree"
            )
        if wanted.height < placed.height:
            logger.info(
                "%d of %d annotated spans have labels that are not requested",
                placed.height - wanted.height,
                placed.height,
            )
        number = {label: i for i, label in enumerate(labels)}
        wanted = wanted.with_columns(
            label=pl.col("entity_group").replace_strict(number, return_dtype=pl.Int64)
        ).sort("note", "start", "end", "label")
        self.texts = notes["text"]
        self._spans = wanted.select("start", "end", "label").to_numpy()
        self._first = np.searchsorted(wanted["note"].to_numpy(), np.arange(len(notes) + 1))
        self._splitter = splitter
        self._max_width = max_width
        self.counts = SpanCounts()

    def __len__(self) -> int:
        return len(self.texts)

    def examples(self, note: int, max_words: int) -> list[Example]:
        """The chunks of one note, without overlap."""
        text = self.texts[note]
        words = split_words(text, self._splitter)
        spans, unknown = self._in_words(note, words.starts, words.ends)
        examples = []
        for begin, end in chunk_bounds(len(words), max_words, 0):
            inside, hidden = [], {word - begin for word in unknown if begin <= word < end}
            for first, last, label in spans:
                if begin <= first and last < end:
                    inside.append((first - begin, last - begin, label))
                elif first < end and last >= begin:  # cut by the chunk
                    hidden.update(range(max(first, begin) - begin, min(last + 1, end) - begin))
            examples.append(Example(words.texts(text, begin, end), inside, sorted(hidden)))
        return examples

    def batches(
        self, batch_size: int, max_words: int, rng: np.random.Generator
    ) -> Iterator[list[Example]]:
        """Batches without end: every note once in random order, then again in another.

        Chunks drawn near each other are grouped by length, so that little is padding.
        """
        drawn: list[Example] = []
        while True:
            for note in rng.permutation(len(self)).tolist():
                drawn += self.examples(note, max_words)
                while len(drawn) >= batch_size * CHUNKS_SHUFFLED:
                    head = drawn[: batch_size * CHUNKS_SHUFFLED]
                    del drawn[: batch_size * CHUNKS_SHUFFLED]
                    head.sort(key=lambda example: len(example.words))
                    for i in rng.permutation(CHUNKS_SHUFFLED).tolist():
                        yield head[i * batch_size : (i + 1) * batch_size]

    def _in_words(
        self, note: int, starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> tuple[list[tuple[int, int, int]], list[int]]:
        spans: list[tuple[int, int, int]] = []
        unknown: list[int] = []
        for start, end, label in self._spans[self._first[note] : self._first[note + 1]].tolist():
            first = int(np.searchsorted(ends, start, "right"))
            last = int(np.searchsorted(starts, end, "left")) - 1
            if last < first:
                self.counts.without_words += 1
            elif last - first >= self._max_width:
                self.counts.too_long += 1
                unknown += range(first, last + 1)
            else:
                self.counts.kept += 1
                self.counts.widened += bool(starts[first] < start or ends[last] > end)
                spans.append((first, last, label))
        return spans, unknown


def _refuse_first(placed: pl.DataFrame, bad: pl.Expr, what: str, path: str | Path) -> None:
    rows = placed.with_row_index("number", offset=1).filter(bad)
    if not rows.is_empty():
        raise UserError(
            f"span file {path}, span {rows['number'][0]} {what} (doc_id "
            f"{rows['doc_id'][0]}); correct the span or the notes"
        )
