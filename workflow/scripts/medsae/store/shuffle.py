"""The order of a shuffled pass: a pure function of (seed, epoch), never held whole.

The row space is cut into chunks of ``chunk_rows`` contiguous rows. An epoch permutes the
chunks, groups them into pools of at most ``pool_rows`` rows, and permutes the rows of each
pool. Every row occurs exactly once an epoch; memory is bounded by one pool; any position
of the stream can be found again from its number alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class ShuffleOrder:
    """Shuffled order of ``n_rows`` rows for every epoch of one ``seed``."""

    n_rows: int
    chunk_rows: int
    pool_rows: int
    seed: int

    def pools(self, epoch: int) -> list[list[tuple[int, int]]]:
        """The pools of ``epoch``: each a list of row ranges (start, stop)."""
        n_chunks = -(-self.n_rows // self.chunk_rows)
        per_pool = max(1, self.pool_rows // self.chunk_rows)
        order = self._generator(epoch).permutation(n_chunks)
        ranges = [
            (int(c) * self.chunk_rows, min((int(c) + 1) * self.chunk_rows, self.n_rows))
            for c in order
        ]
        return [ranges[i : i + per_pool] for i in range(0, n_chunks, per_pool)]

    def pool_permutation(self, epoch: int, pool: int, n: int) -> Tensor:
        """Order [n] in which the rows of a pool, taken in chunk order, are emitted."""
        return torch.from_numpy(self._generator(epoch, pool + 1).permutation(n))

    def _generator(self, *words: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, *words])))
