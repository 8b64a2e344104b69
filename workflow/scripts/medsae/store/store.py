"""Several shards as one row space."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from medsae.io import UserError
from medsae.store.shard import open_shard
from medsae.store.stream import ShuffledBatches


class ActivationStore:
    """The rows of ``paths``, in that order, as one matrix [n_rows, n_columns].

    Raises ``UserError`` if there is no shard or if the shards differ in columns or type.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        if not paths:
            raise UserError("an activation store needs at least one shard; none was given.")
        self.shards = [open_shard(path) for path in paths]
        first = self.shards[0]
        for shard in self.shards[1:]:
            if (shard.n_columns, shard.dtype) != (first.n_columns, first.dtype):
                raise UserError(
                    f"{shard.path}: has {shard.n_columns} columns of {shard.dtype} where "
                    f"{first.path} has {first.n_columns} of {first.dtype}; write them alike."
                )
        self.n_columns, self.dtype = first.n_columns, first.dtype
        self._starts = torch.tensor([0, *(s.n_rows for s in self.shards)]).cumsum(0).tolist()
        self.n_rows: int = self._starts[-1]

    def __len__(self) -> int:
        return self.n_rows

    def read(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` as a verified copy; raises as ``Shard.read`` does."""
        if not 0 <= start <= stop <= self.n_rows:
            raise IndexError(f"rows {start} to {stop} lie outside 0 to {self.n_rows}")
        parts = []
        for shard, begin in zip(self.shards, self._starts, strict=False):
            low, high = max(start, begin), min(stop, begin + shard.n_rows)
            if low < high:
                parts.append(shard.read(low - begin, high - begin))
        if not parts:
            return torch.empty(0, self.n_columns, dtype=self.dtype)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def rows(self, index: Tensor) -> Tensor:
        """The rows named by ``index`` [m] as [m, n_columns], in that order, unverified."""
        index = index.to("cpu", torch.int64)
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= self.n_rows):
            raise IndexError(f"row numbers lie outside 0 to {self.n_rows}")
        out = torch.empty(index.numel(), self.n_columns, dtype=self.dtype)
        owner = torch.bucketize(index, torch.tensor(self._starts[1:]), right=True)
        for number in owner.unique().tolist():
            here = (owner == number).nonzero().flatten()
            out[here] = self.shards[number].rows(index[here] - self._starts[number])
        return out

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Tensor]:
        """Verified batches in row order; the last one may be smaller."""
        stop = self.n_rows if stop is None else min(stop, self.n_rows)
        for begin in range(start, stop, batch_size):
            yield self.read(begin, min(begin + batch_size, stop))

    def shuffled(
        self,
        batch_size: int,
        seed: int,
        buffer_rows: int,
        position: int = 0,
        n_threads: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> ShuffledBatches:
        """Endless shuffled batches; see ``ShuffledBatches``."""
        return ShuffledBatches(
            self, batch_size, seed, buffer_rows, position, n_threads, rank, world_size
        )

    def verify(self) -> None:
        """Check every block of every shard; raises ``UserError`` naming the first bad one."""
        for shard in self.shards:
            shard.verify()
