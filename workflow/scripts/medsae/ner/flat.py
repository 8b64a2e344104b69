"""From what each chunk of a note proposes to one set of spans for the note.

1. A span that touches a chunk's border inside the note may have been cut by it: it is dropped
   if another chunk holds the same words away from its own borders, and so could see past them.
2. The same words with the same label, proposed by several chunks: the highest score wins.
3. Flat NER: spans are taken by score, and one that overlaps a span already taken is dropped.

Every step is a function of the set of candidates, not of their order.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Candidate(NamedTuple):
    """Words ``first`` to ``last`` (inclusive) of a note, read as ``label``."""

    first: int
    last: int
    label: str
    score: float


def drop_cut(
    proposals: Iterable[tuple[int, Candidate]], chunks: Sequence[tuple[int, int]]
) -> list[Candidate]:
    """Step 1. ``proposals`` pair the index of a chunk with what it proposes.

    ``chunks`` are the chunks of one note as given by ``chunk_bounds``: in order, the first
    beginning and the last ending with the note.
    """
    last_chunk = len(chunks) - 1

    def inside(index: int, span: Candidate) -> bool:
        begin, end = chunks[index]
        return (index == 0 or span.first > begin) and (index == last_chunk or span.last < end - 1)

    def inside_another(index: int, span: Candidate) -> bool:
        others = [*range(index - 1, -1, -1), *range(index + 1, len(chunks))]
        return any(
            chunks[other][0] <= span.first and span.last < chunks[other][1] and inside(other, span)
            for other in others
        )

    return [
        span for index, span in proposals if inside(index, span) or not inside_another(index, span)
    ]


def flatten(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Steps 2 and 3: non-overlapping spans in reading order.

    Equal scores are decided by the earlier, then the shorter span, then the label's name.
    """
    best: dict[tuple[int, int, str], float] = {}
    for span in candidates:
        key = span[:3]
        best[key] = max(best.get(key, span.score), span.score)
    ranked = sorted((-score, *key) for key, score in best.items())
    taken: list[Candidate] = []  # in reading order, never overlapping
    for negative_score, first, last, label in ranked:
        span = Candidate(first, last, label, -negative_score)
        place = bisect_left(taken, span)
        before_is_free = place == 0 or taken[place - 1].last < first
        after_is_free = place == len(taken) or taken[place].first > last
        if before_is_free and after_is_free:
            insort(taken, span)
    return taken
