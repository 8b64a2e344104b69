"""Shuffled batches of a store: bounded memory, any number of reader threads, resumable."""

from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medsae.store.shuffle import ShuffleOrder

if TYPE_CHECKING:
    from medsae.store.store import ActivationStore

CHUNK_BYTES = 4 << 20


class ShuffledBatches(Iterator[Tensor]):
    """Endless stream of batches [batch_size, n_columns], reshuffled every epoch.

    The stream is the rows of epoch 0, then of epoch 1, …, cut every ``batch_size`` rows;
    a batch may span two epochs. ``position`` counts the rows given out: a stream started
    with the position at which another stopped goes on exactly as that one would have.

    ``buffer_rows`` bounds the rows held. A store that fits stays in memory and is read
    once; otherwise half the buffer is used while the other half is read ahead.

    With ``world_size`` processes, each gives out its own equal slice of every batch.
    """

    def __init__(
        self,
        store: "ActivationStore",
        batch_size: int,
        seed: int,
        buffer_rows: int,
        position: int = 0,
        n_threads: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(f"batch_size {batch_size} is not a multiple of {world_size} processes")
        if position < 0 or position % batch_size:
            raise ValueError(f"position {position} is not a whole number of batches")
        if store.n_rows == 0:
            raise ValueError("a store without rows has no batches")
        self.position = position
        self._store, self._batch_size = store, batch_size
        self._rank, self._slice = rank, batch_size // world_size
        resident = store.n_rows <= buffer_rows
        pool_rows = store.n_rows if resident else max(1, buffer_rows // 2)
        chunk_rows = max(1, CHUNK_BYTES // (store.n_columns * store.dtype.itemsize))
        self._order = ShuffleOrder(store.n_rows, min(chunk_rows, pool_rows), pool_rows, seed)
        self._readers = ThreadPoolExecutor(max(1, n_threads), thread_name_prefix="shard-reader")
        self._cache = self._read_all() if resident else None
        self._pools = self._emit_pools()
        self._current, self._at = next(self._pools), 0

    def __next__(self) -> Tensor:
        parts, needed = [], self._slice
        while needed:
            part = self._current[self._at : self._at + needed]
            if part.shape[0]:
                parts.append(part if self._cache is None else self._cache.index_select(0, part))
                needed -= part.shape[0]
                self._at += part.shape[0]
            else:
                # nothing may hold the old pool while the one after next is being read
                parts, self._current = [part.clone() for part in parts], self._current[:0].clone()
                del part
                self._current, self._at = next(self._pools), 0
        self.position += self._batch_size
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def close(self) -> None:
        """Stop the reader threads and let go of all rows."""
        self._readers.shutdown(cancel_futures=True)  # waits for at most a chunk per thread
        self._pools.close()
        self._cache, self._current = None, self._current[:0].clone()

    def _emit_pools(self) -> Generator[Tensor, None, None]:
        """Pools from ``position`` on: rows in emission order, or row numbers if resident."""
        plan = self._plan()
        ahead = self._start_loading(*next(plan))
        while True:
            pool = self._finished(*ahead)
            ahead = self._start_loading(*next(plan))  # while this pool is given out
            yield pool
            del pool

    def _plan(self) -> Iterator[tuple[list[tuple[int, int]], Tensor]]:
        """(row ranges of a pool, its rows [m] in the order this process gives them out)."""
        epoch = self.position // self._store.n_rows
        while True:
            begin = epoch * self._store.n_rows
            for number, ranges in enumerate(self._order.pools(epoch)):
                n = sum(stop - start for start, stop in ranges)
                if begin + n > self.position:
                    emission = self._order.pool_permutation(epoch, number, n)
                    place = torch.arange(begin, begin + n)
                    mine = (place % self._batch_size) // self._slice == self._rank
                    yield ranges, emission[mine & (place >= self.position)]
                begin += n
            epoch += 1

    def _start_loading(
        self, ranges: list[tuple[int, int]], emission: Tensor
    ) -> tuple[Tensor, list[Future[None]]]:
        if self._cache is not None:
            rows = torch.cat([torch.arange(start, stop) for start, stop in ranges])
            return rows[emission], []
        n = sum(stop - start for start, stop in ranges)
        destination = torch.full((n,), -1)
        destination[emission] = torch.arange(emission.numel())
        pool = torch.empty(emission.numel(), self._store.n_columns, dtype=self._store.dtype)
        futures, at = [], 0
        for start, stop in ranges:
            piece = destination[at : at + stop - start]
            futures.append(self._readers.submit(self._load, start, stop, piece, pool))
            at += stop - start
        return pool, futures

    def _load(self, start: int, stop: int, destination: Tensor, pool: Tensor) -> None:
        kept = (destination >= 0).nonzero().flatten()
        if kept.numel():
            pool[destination[kept]] = self._store.read(start, stop)[kept]

    def _read_all(self) -> Tensor:
        whole = torch.empty(self._store.n_rows, self._store.n_columns, dtype=self._store.dtype)

        def load(start: int, stop: int) -> None:
            whole[start:stop] = self._store.read(start, stop)

        step = self._order.chunk_rows
        futures = [
            self._readers.submit(load, start, min(start + step, self._store.n_rows))
            for start in range(0, self._store.n_rows, step)
        ]
        return self._finished(whole, futures)

    @staticmethod
    def _finished(rows: Tensor, futures: list[Future[None]]) -> Tensor:
        for future in futures:
            future.result()
        return rows
