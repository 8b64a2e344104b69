"""Overlap of the latents of every pair of occurrences, exactly, in bounded memory.

J(A, B) = |A ∩ B| / |A ∪ B| of the sets of the k largest positive latents (Jaccard 1901).
All intersections of a block of occurrences are one product X Xᵀ of binary matrices: dense
for the latents that many occurrences share, sparse for the rest. Two empty sets have J = 0.
Latents of a single occurrence are in no intersection and only counted, so J of an occurrence
with itself, which is no pair, is not 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

BLOCK_CELLS = 8_000_000
"""Pairs whose overlap is held at once."""

DENSE_SHARE = 0.02
"""Latents in at least this share of the occurrences are multiplied densely."""


@dataclass(frozen=True)
class TopSets:
    """Binary sets [n, n_latents], the common latents split off as a dense matrix."""

    common: NDArray[np.float32]
    rare: csr_array
    sizes: NDArray[np.float32]


@dataclass(frozen=True)
class GroupedOverlap:
    """Sums of J between groups of occurrences (a group: one patient's use of one sense).

    Groups are sorted by patient. ``sums`` [G, G]: over pairs of occurrences; 0 for groups of
    one patient.
    ``sizes``, ``patient``, ``label`` [G]: occurrences, patient code, sense code of a group.
    """

    sums: NDArray[np.float32]
    sizes: NDArray[np.integer]
    patient: NDArray[np.integer]
    label: NDArray[np.integer]


def top_sets(codes: csr_array, k: int | None) -> TopSets:
    """The sets of the ``k`` first (largest) latents of each row; None: all of them."""
    lengths = np.diff(codes.indptr)
    if k is not None:
        position = np.arange(codes.nnz) - np.repeat(codes.indptr[:-1], lengths)
        indices = codes.indices[position < k]
        lengths = np.minimum(lengths, k)
    else:
        indices = codes.indices
    used, compact = np.unique(indices, return_inverse=True)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    ones = np.ones(len(compact), dtype=np.float32)
    sets = csr_array((ones, compact.astype(np.int32), indptr), shape=(len(lengths), len(used)))
    counts = np.bincount(compact, minlength=len(used))
    common = counts >= max(2, DENSE_SHARE * len(lengths))
    columns = sets.tocsc()
    return TopSets(
        common=columns[:, np.flatnonzero(common)].toarray(),
        rare=columns[:, np.flatnonzero(~common & (counts > 1))].tocsr(),
        sizes=lengths.astype(np.float32),
    )


def overlap_block(
    sets: TopSets, rows: slice, columns: slice
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """|A ∩ B| and |A ∪ B| of ``rows`` × ``columns``, exact small integers as float32."""
    shared = sets.common[rows] @ sets.common[columns].T
    if sets.rare.nnz:
        product = sets.rare[rows] @ sets.rare[columns].T
        row = np.repeat(np.arange(product.shape[0]), np.diff(product.indptr))
        shared[row, product.indices] += product.data
    union = sets.sizes[rows, None] + sets.sizes[None, columns] - shared
    return shared, union


def jaccard_block(sets: TopSets, rows: slice, columns: slice) -> NDArray[np.float32]:
    """J of ``rows`` × ``columns``."""
    shared, union = overlap_block(sets, rows, columns)
    np.maximum(union, 1, out=union)
    return np.divide(shared, union, out=shared)


def row_blocks(starts: NDArray[np.integer], n: int) -> Iterator[tuple[slice, slice]]:
    """Cut ``n`` rows at ``starts`` of groups so that a block against all n fits in memory.

    Yields (slice of groups, slice of rows).
    """
    step = max(1, BLOCK_CELLS // max(n, 1))
    first = 0
    while first < len(starts):
        last = int(np.searchsorted(starts, starts[first] + step, side="right")) - 1
        last = max(last, first + 1) if starts[first] + step < n else len(starts)
        end = int(starts[last]) if last < len(starts) else n
        yield slice(first, last), slice(int(starts[first]), end)
        first = last


def group_rows(
    patient: NDArray[np.integer], label: NDArray[np.integer]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row order that puts each (patient, label) together, and where the groups start."""
    order = np.lexsort((label, patient))
    changes = (np.diff(patient[order]) != 0) | (np.diff(label[order]) != 0)
    return order, np.concatenate([[0], np.flatnonzero(changes) + 1])


def grouped_overlap(
    codes: csr_array, patient: NDArray[np.integer], label: NDArray[np.integer], k: int | None
) -> GroupedOverlap:
    """J summed over all pairs of occurrences, by (patient, label) group; needs n ≥ 1 rows."""
    order, starts = group_rows(patient, label)
    sets = top_sets(codes[order], k)
    n = len(order)
    ends = np.append(starts, n)
    member = csr_array((np.ones(n, dtype=np.float32), np.arange(n), ends), shape=(len(starts), n))
    sums = np.zeros((len(starts), len(starts)), dtype=np.float32)
    for groups, rows in row_blocks(starts, n):
        # the matrix is symmetric: only what lies right of the block's first row
        block = jaccard_block(sets, rows, slice(rows.start, n))
        block = np.add.reduceat(block, starts[groups.start :] - rows.start, axis=1)
        sums[groups, groups.start :] = member[groups, rows] @ block
    _mirror(sums)
    owner = patient[order][starts]
    for apart in range(int(label.max(initial=0)) + 1):
        first = np.flatnonzero(owner[: len(owner) - apart] == owner[apart:])
        sums[first, first + apart] = sums[first + apart, first] = 0.0
    sizes = np.diff(ends)
    return GroupedOverlap(sums, sizes, owner, label[order][starts])


def _mirror(matrix: NDArray, tile: int = 1024) -> None:
    """Copy what lies above the diagonal below it, tile by tile to spare the cache."""
    for row in range(0, len(matrix), tile):
        rows = slice(row, row + tile)
        for column in range(0, row, tile):
            columns = slice(column, column + tile)
            matrix[rows, columns] = matrix[columns, rows].T
        corner = matrix[rows, rows]
        matrix[rows, rows] = np.triu(corner) + np.triu(corner, 1).T
