"""The slices that activate each feature most, one per scan, from one pass over the features."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

Batch = tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.floating]]


@dataclass(frozen=True)
class TopSlices:
    """``row`` int64 [L, N] and ``value`` float32 [L, N], largest first, −1 and 0 where fewer.

    ``n_active`` int64 [L]: rows of the pool on which each feature is positive; ``n_pool``:
    rows of the pool.
    """

    row: NDArray[np.int64]
    value: NDArray[np.float32]
    n_active: NDArray[np.int64]
    n_pool: int

    @property
    def n_retrieved(self) -> NDArray[np.int64]:
        """Slices found for each feature [L]."""
        return (self.row >= 0).sum(1)

    @property
    def always_active(self) -> NDArray[np.bool_]:
        """Features [L] that tell no slice of the pool from another by their presence."""
        return self.n_active == self.n_pool


def top_slices(
    batches: Iterable[Batch],
    scan: NDArray[np.integer],
    pool: NDArray[np.bool_],
    n_latents: int,
    n_top: int,
) -> TopSlices:
    """The ``n_top`` scans with the largest activation of each feature, and their best slice.

    ``batches`` yield (row, latent, activation) with rows ascending from batch to batch;
    ``scan`` [n] numbers the scan of each row; only rows in ``pool`` [n] take part. Ties go to
    the earlier row. Memory: n_latents × n_top entries, and the batches being worked on and read.
    Raises ``ValueError`` for more than 2³² rows or 2²⁰ features.
    """
    if len(scan) > 1 << 32 or n_latents > 1 << LATENT_BITS:
        raise ValueError("too many rows or features")
    best = np.full((n_latents, n_top), NOTHING)
    n_active = np.zeros(n_latents, dtype=np.int64)
    first_row = np.full(int(scan.max()) + 1 if len(scan) else 0, len(scan), dtype=np.uint64)
    np.minimum.at(first_row, scan, np.arange(len(scan), dtype=np.uint64))
    for rows, latents, values in _read_ahead(batches):
        taken = pool[rows] & (values > 0)
        row, latent = rows[taken].astype(np.int64), latents[taken].astype(np.int64)
        value = values[taken].astype(np.float32)
        n_active += np.bincount(latent, minlength=n_latents)
        if not len(row):
            continue
        cuts = np.searchsorted(row, np.arange(row[0] + CHUNK_ROWS, row[-1] + 1, CHUNK_ROWS))
        for chunk in np.split(np.arange(len(row)), cuts):
            # rows only grow, so an entry that ties with a full list's last loses
            last = _value_of(best[:, -1])
            better = chunk[value[chunk] > last[latent[chunk]]]
            if len(better):
                _merge(best, row[better], latent[better], value[better], scan, first_row)
    found = best != NOTHING
    return TopSlices(
        np.where(found, (best & LOW).astype(np.int64), -1),
        np.where(found, _value_of(best), np.float32(0)),
        n_active,
        int(pool.sum()),
    )


def _read_ahead(batches: Iterable[Batch]) -> Iterator[Batch]:
    """``batches``, the next of which is read while one is worked on."""
    source = iter(batches)
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, source, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, source, None)
            yield batch


# An entry of a list is one number, (2³² − 1 − bits of the activation) · 2³² + row: positive
# floats are ordered like their bits, so that sorted numbers are activations in descending
# order, and rows in ascending order where they tie.
NOTHING = np.uint64(2**64 - 1)
LOW = np.uint64(2**32 - 1)
CHUNK_ROWS, ROW_BITS, LATENT_BITS = 4096, 12, 20


def _value_of(entries: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Activation of each entry; 0 for no entry."""
    bits = (LOW - (entries >> np.uint64(32))).astype(np.uint32)
    return bits.view(np.float32)


def _merge(
    best: NDArray[np.uint64],
    row: NDArray[np.int64],
    latent: NDArray[np.int64],
    value: NDArray[np.float32],
    scan: NDArray[np.integer],
    first_row: NDArray[np.uint64],
) -> None:
    """Put the entries of fewer than `CHUNK_ROWS` rows into the sorted lists ``best`` [L, N]."""
    n_top = best.shape[1]
    row, latent, value = _best_of_scans(row, latent, value, scan)
    down = LOW - value.view(np.uint32)
    local = (row - row.min()).astype(np.uint64)
    key = latent.astype(np.uint64) << np.uint64(32 + ROW_BITS) | down << np.uint64(ROW_BITS) | local
    key.sort()
    latent = (key >> np.uint64(32 + ROW_BITS)).astype(np.int64)
    is_first = np.diff(latent, prepend=-1) != 0
    start, place = np.flatnonzero(is_first), np.cumsum(is_first) - 1
    touched = latent[start]
    rank = np.arange(len(latent)) - start[place]
    kept = rank < n_top
    key, place, rank = key[kept], place[kept], rank[kept]
    rows = (key & np.uint64((1 << ROW_BITS) - 1)) + np.uint64(row.min())
    new = np.full((len(touched), n_top), NOTHING)
    new[place, rank] = ((key >> np.uint64(ROW_BITS)) & LOW) << np.uint64(32) | rows
    old = best[touched]
    _keep_one_per_scan(old, new, scan, first_row)
    both = np.concatenate([old, new], axis=1)
    both.sort(axis=1)
    best[touched] = both[:, :n_top]


def _best_of_scans(
    row: NDArray[np.int64],
    latent: NDArray[np.int64],
    value: NDArray[np.float32],
    scan: NDArray[np.integer],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The largest entry of each feature and scan, the first of them where they tie."""
    rows = np.flatnonzero(np.bincount(row - row.min())) + row.min()
    rows = rows[np.argsort(scan[rows], kind="stable")]
    place = np.empty(int(row.max() - row.min()) + 1, dtype=np.int64)
    place[rows - row.min()] = np.arange(len(rows))
    shape = (len(rows), int(latent.max()) + 1)
    columns = coo_array((value, (place[row - row.min()], latent)), shape=shape).tocsr().tocsc()
    latent = np.repeat(np.arange(shape[1]), np.diff(columns.indptr))
    row, value = rows[columns.indices], columns.data
    change = (np.diff(latent) != 0) | (np.diff(scan[row]) != 0)
    run = np.concatenate([[0], np.cumsum(change)])
    largest = np.maximum.reduceat(value, np.flatnonzero(np.concatenate([[True], change])))
    top = np.flatnonzero(value == largest[run])
    first = top[np.diff(run[top], prepend=-1) != 0]
    return row[first], latent[first], value[first]


def _keep_one_per_scan(
    old: NDArray[np.uint64],
    new: NDArray[np.uint64],
    scan: NDArray[np.integer],
    first_row: NDArray[np.uint64],
) -> None:
    """Of entries of one scan in both lists [T, N], clear the worse one.

    Nothing before the ``first_row`` of every scan in ``new`` needs to be looked at.
    """
    present = new != NOTHING
    here = np.zeros(len(first_row), dtype=bool)
    here[scan[(new[present] & LOW).astype(np.int64)]] = True
    earliest = first_row[here].min()
    line, column = np.nonzero((old != NOTHING) & ((old & LOW) >= earliest))
    of_old = scan[(old[line, column] & LOW).astype(np.int64)]
    again = here[of_old]
    line, column, of_old = line[again], column[again], of_old[again]
    if not len(line):
        return
    of_new = np.full(new.shape, -1)
    of_new[present] = scan[(new[present] & LOW).astype(np.int64)]
    same = of_new[line] == of_old[:, None]
    hit = np.flatnonzero(same.any(1))
    line, column, other = line[hit], column[hit], same[hit].argmax(1)
    older = old[line, column] < new[line, other]
    new[line[older], other[older]] = NOTHING
    old[line[~older], column[~older]] = NOTHING


def random_top_slices(
    scan: NDArray[np.integer],
    pool: NDArray[np.bool_],
    n_draws: int,
    n_top: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Rows [n_draws, min(n_top, scans)] that a feature with random activations would retrieve.

    Activations shuffled over the pool put the slices in a random order, of which the first
    of each scan counts: scan s with n_s slices has the largest of n_s uniform numbers as its
    key (drawn as U^(1/n_s)), and any of its slices is as likely.
    """
    rows = np.flatnonzero(pool)
    rows = rows[np.argsort(scan[rows], kind="stable")]
    start = np.flatnonzero(np.diff(scan[rows], prepend=-1))
    sizes = np.diff(np.append(start, len(rows)))
    n_top = min(n_top, len(sizes))
    drawn = np.empty((n_draws, n_top), dtype=np.int64)
    step = max(1, (1 << 22) // max(len(sizes), 1))
    for begin in range(0, n_draws, step):
        n = min(step, n_draws - begin)
        key = np.log(rng.random((n, len(sizes)))) / sizes
        scans = np.argsort(-key, axis=1)[:, :n_top]
        within = np.floor(rng.random(scans.shape) * sizes[scans]).astype(np.int64)
        drawn[begin : begin + n] = rows[start[scans] + within]
    return drawn
