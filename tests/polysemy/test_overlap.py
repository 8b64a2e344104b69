import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from medsae.polysemy import overlap
from medsae.polysemy.overlap import grouped_overlap, jaccard_block, row_blocks, top_sets

# lists of distinct latents, in descending order of activation
latent_rows = st.lists(
    st.lists(st.integers(0, 12), max_size=6, unique=True), min_size=1, max_size=12
)


def codes_of(rows, n_latents=13):
    indices = np.array([i for row in rows for i in row], dtype=np.int32)
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    return csr_array((np.ones(len(indices), np.float32), indices, indptr), (len(rows), n_latents))


def python_jaccard(a, b):
    union = len(set(a) | set(b))
    return len(set(a) & set(b)) / union if union else 0.0


@pytest.mark.parametrize("dense_share", [0.0, 0.3, 2.0])
@given(rows=latent_rows, k=st.sampled_from([None, 1, 2, 4]))
def test_every_pair_equals_python_sets(dense_share, rows, k):
    expected = [[python_jaccard(a[:k], b[:k]) for b in rows] for a in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "DENSE_SHARE", dense_share)
        sets = top_sets(codes_of(rows), k)
    every = slice(0, len(rows))
    found = jaccard_block(sets, every, every)
    pairs = ~np.eye(len(rows), dtype=bool)
    np.testing.assert_allclose(found[pairs], np.array(expected)[pairs], rtol=1e-6)


@given(latent_rows, st.integers(1, 200), st.integers(0, 10_000))
def test_group_sums_equal_loops_whatever_the_block(rows, block_cells, seed):
    rng = np.random.default_rng(seed)
    patient, label = rng.integers(0, 4, len(rows)), rng.integers(0, 2, len(rows))
    patient = np.unique(patient, return_inverse=True)[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "BLOCK_CELLS", block_cells)
        grouped = grouped_overlap(codes_of(rows), patient, label, None)
    for g in range(len(grouped.sizes)):
        for h in range(len(grouped.sizes)):
            own = np.flatnonzero((patient == grouped.patient[g]) & (label == grouped.label[g]))
            others = np.flatnonzero((patient == grouped.patient[h]) & (label == grouped.label[h]))
            assert len(own) == grouped.sizes[g]
            expected = sum(python_jaccard(rows[i], rows[j]) for i in own for j in others)
            if grouped.patient[g] == grouped.patient[h]:
                expected = 0
            assert grouped.sums[g, h] == pytest.approx(expected, rel=1e-6)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 500))
def test_blocks_cover_every_row_and_group_once(sizes, block_cells):
    starts, n = np.cumsum([0, *sizes[:-1]]), sum(sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "BLOCK_CELLS", block_cells)
        blocks = list(row_blocks(starts, n))
    assert [g for groups, _ in blocks for g in range(groups.start, groups.stop)] == list(
        range(len(sizes))
    )
    assert [r for _, rows in blocks for r in range(rows.start, rows.stop)] == list(range(n))
    for groups, rows in blocks:
        assert rows.start == starts[groups.start]
        # a block holds one group at least, and no more rows than asked for otherwise
        assert groups.stop - groups.start == 1 or rows.stop - rows.start <= max(1, block_cells // n)
