"""What the chunks of a note propose becomes one flat set of spans."""

import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from medsae.ner.flat import Candidate, drop_cut, flatten

CANDIDATES = st.lists(
    st.builds(
        lambda first, width, label, score: Candidate(first, first + width, label, score),
        st.integers(0, 30),
        st.integers(0, 5),
        st.sampled_from(["drug", "organ"]),
        st.sampled_from([0.5, 0.6, 0.9, 0.91]),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(CANDIDATES, st.randoms(use_true_random=False))
def test_the_result_is_flat_idempotent_and_independent_of_order(candidates, rng):
    taken = flatten(candidates)
    assert all(a.last < b.first for a, b in pairwise(taken))
    assert set(taken) <= set(candidates)
    shuffled = random.Random(rng.random()).sample(candidates, len(candidates))
    assert flatten(shuffled) == taken
    assert flatten(taken) == taken
    assert flatten(candidates + taken) == taken


@settings(deadline=None)
@given(CANDIDATES)
def test_what_is_left_out_overlaps_something_at_least_as_certain(candidates):
    taken = flatten(candidates)
    for span in set(candidates) - set(taken):
        assert any(
            kept.first <= span.last and span.first <= kept.last and kept.score >= span.score
            for kept in taken
        )


def test_the_higher_score_of_a_span_seen_twice_wins():
    assert flatten([Candidate(1, 2, "a", 0.6), Candidate(1, 2, "a", 0.9)]) == [
        Candidate(1, 2, "a", 0.9)
    ]


def test_a_span_cut_by_a_border_gives_way_to_the_whole_one():
    chunks = [(0, 10), (5, 15)]
    cut, whole = Candidate(8, 9, "a", 0.95), Candidate(8, 11, "a", 0.8)
    assert flatten(drop_cut([(0, cut), (1, whole)], chunks)) == [whole]


def test_a_span_at_a_border_that_no_other_chunk_sees_past_stays():
    chunks = [(0, 10), (10, 20)]
    span = Candidate(8, 9, "a", 0.95)
    assert drop_cut([(0, span)], chunks) == [span]


def test_the_ends_of_the_note_are_no_borders():
    span, end = Candidate(0, 1, "a", 0.9), Candidate(14, 14, "a", 0.9)
    assert drop_cut([(0, span), (1, end)], [(0, 10), (0, 15)]) == [span, end]
