"""Every token is read once, with the most left context that the stride gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsae.activations.windows import pack_batches, plan_windows


@given(
    counts=st.lists(st.integers(0, 60), max_size=8),
    ctx_len=st.integers(1, 20),
    data=st.data(),
)
def test_every_row_is_kept_once_with_the_most_left_context(counts, ctx_len, data):
    stride = data.draw(st.integers(1, ctx_len))
    windows = plan_windows(np.array(counts), ctx_len, stride)
    n_rows = sum(counts)
    kept = np.zeros(n_rows, int)
    context = np.full(n_rows, -1)
    best = np.full(n_rows, -1)
    for start, first, stop in zip(windows.start, windows.kept, windows.stop, strict=True):
        assert 0 < stop - start <= ctx_len
        assert start <= first < stop
        rows = np.arange(first, stop)
        kept[rows] += 1
        context[rows] = rows - start
        every = np.arange(start, stop)
        best[every] = np.maximum(best[every], every - start)
    assert (kept == 1).all()
    assert (context == best).all()

    document = np.repeat(np.arange(len(counts)), counts)
    for start, stop in zip(windows.start, windows.stop, strict=True):
        assert document[start] == document[stop - 1]


def test_a_token_past_the_first_window_has_at_least_the_overlap_as_context():
    windows = plan_windows(np.array([100]), ctx_len=16, stride=4)
    assert windows.start.tolist()[:3] == [0, 4, 8]
    assert windows.kept.tolist()[:3] == [0, 16, 20]
    assert windows.stop[-1] == 100


def test_a_stride_beyond_the_window_is_refused():
    with pytest.raises(ValueError, match="stride 9"):
        plan_windows(np.array([10]), ctx_len=8, stride=9)


@given(lengths=st.lists(st.integers(1, 50), max_size=40), budget=st.integers(1, 200))
def test_batches_stay_within_the_budget_and_lose_no_window(lengths, budget):
    batches = list(pack_batches(np.array(lengths, dtype=int), budget))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = max(lengths[index] for index in batch) * len(batch)
        assert padded <= budget or len(batch) == 1
