"""Chunks cover every word, and offsets are exact whatever the characters."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsae.ner.words import chunk_bounds, split_words

PATTERN = re.compile(r"\w+(?:[-_]\w+)*|\S")  # GLiNER's whitespace splitter
ADVERSARIAL = st.text(
    st.one_of(
        st.sampled_from("ab1 -_\t\r\n.,\u00a0\u200d\u0301é𝒳🫀👩🏽‍⚕️ßİ"), st.characters(codec="utf-8")
    ),
    max_size=200,
)


def splitter(text):
    for match in PATTERN.finditer(text):
        yield match.group(), match.start(), match.end()


@settings(deadline=None)
@given(ADVERSARIAL)
def test_words_are_what_their_offsets_say(text):
    words = split_words(text, splitter)
    assert words.texts(text, 0, len(words)) == [word for word, _, _ in splitter(text)]


@settings(deadline=None)
@given(st.data(), st.integers(0, 300), st.integers(1, 50), st.integers(1, 60))
def test_chunks_cover_every_word_within_both_limits(data, n_words, max_words, max_tokens):
    overlap = data.draw(st.integers(0, max_words - 1))
    tokens = np.array(data.draw(st.lists(st.integers(0, 40), min_size=n_words, max_size=n_words)))
    for limits in ((), (tokens.astype(np.int64), max_tokens)):
        bounds = chunk_bounds(n_words, max_words, overlap, *limits)
        covered = {word for begin, end in bounds for word in range(begin, end)}
        assert covered == set(range(n_words))
        assert all(0 < end - begin <= max_words for begin, end in bounds)
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(bounds))
        if limits:
            assert all(
                tokens[begin:end].sum() <= max_tokens or end == begin + 1 for begin, end in bounds
            )


def test_neighbouring_chunks_share_the_overlap():
    assert chunk_bounds(25, 10, 4) == [(0, 10), (6, 16), (12, 22), (18, 25)]


def test_a_note_without_words_has_no_chunk():
    assert chunk_bounds(0, 10, 4) == []


def test_an_overlap_that_would_not_advance_is_refused():
    with pytest.raises(ValueError, match="not below"):
        chunk_bounds(5, 10, 10)
