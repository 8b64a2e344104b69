import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from medsae.imaging.top_slices import random_top_slices, top_slices


def batches_of(values, size):
    for start in range(0, len(values), size):
        row, latent = np.nonzero(values[start : start + size])
        yield row + start, latent, values[start : start + size][row, latent]


def naive_top(values, scan, pool, n_top):
    found = []
    for latent in range(values.shape[1]):
        order = sorted(
            (row for row in range(len(values)) if pool[row] and values[row, latent] > 0),
            key=lambda row: (-values[row, latent], row),
        )
        seen, kept = set(), []
        for row in order:
            if scan[row] not in seen:
                seen.add(scan[row])
                kept.append(row)
        found.append(kept[:n_top])
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 6))
def test_equals_sorting_each_feature_whatever_the_batches(seed, size, n_top):
    rng = np.random.default_rng(seed)
    # few distinct values, so that ties are common
    values = rng.integers(0, 4, (25, 5)).astype(np.float32)
    scan, pool = rng.integers(0, 6, 25), rng.random(25) < 0.8
    top = top_slices(batches_of(values, size), scan, pool, 5, n_top)
    for latent, expected in enumerate(naive_top(values, scan, pool, n_top)):
        row = top.row[latent]
        assert row[row >= 0].tolist() == expected
        assert top.value[latent][: len(expected)].tolist() == values[expected, latent].tolist()
    assert top.n_active.tolist() == (values[pool] > 0).sum(0).tolist()


def test_a_feature_active_on_the_whole_pool_is_marked():
    values = np.array([[1, 0], [2, 1], [1, 0]], np.float32)
    top = top_slices(batches_of(values, 2), np.arange(3), np.ones(3, bool), 2, 2)
    assert top.always_active.tolist() == [True, False]


def test_random_retrieval_has_the_distribution_of_shuffled_activations():
    rng = np.random.default_rng(0)
    scan = np.array([0, 0, 0, 0, 0, 0, 1, 2, 2])
    pool = np.ones(9, bool)
    pool[5] = False
    drawn = random_top_slices(scan, pool, 20_000, 2, rng)
    shuffled = np.zeros(9)
    for _ in range(5000):
        values = rng.random((9, 1))
        shuffled[naive_top(values, scan, pool, 2)[0]] += 1 / 5000
    assert np.abs(np.bincount(drawn.ravel(), minlength=9) / 20_000 - shuffled).max() < 0.03
    assert (scan[drawn[:, 0]] != scan[drawn[:, 1]]).all()
