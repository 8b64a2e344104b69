"""A high quantile of every latent's activations, in one pass and bounded memory.

The q-quantile of n values needs only its (1 − q)(n − 1) + 1 largest. The sketch keeps the
``capacity`` largest values of every latent, so a latent with few enough firings is exact. When
the rows are so many that a frequent latent could need more than memory allows, a
logarithmic histogram with 48 bins an octave stands in for those: its relative error is at
most 2^(1/96) − 1 = 0.73%, for quantiles within 12 octaves of the largest activation of all.
"""

import math

import torch
from torch import Tensor

EXACT_BYTES = 256 << 20
SKETCH_CAPACITY = 64
BINS_PER_OCTAVE = 48
OCTAVES = 16
HEADROOM_OCTAVES = 3
FLUSH_ENTRIES = 1 << 22
BLOCK_LATENTS = 8192  # of which values are sorted at once


class QuantileSketch:
    """Sketch of the ``quantile`` of positive values, per latent.

    ``n_rows`` bounds how often a latent can fire; it decides whether all latents are
    exact (``is_exact``) or the frequent ones estimated.
    """

    def __init__(
        self,
        n_latents: int,
        quantile: float,
        n_rows: int,
        device: torch.device | str = "cpu",
        exact_bytes: int = EXACT_BYTES,
    ) -> None:
        self.quantile = quantile
        needed = math.ceil((1 - quantile) * max(n_rows - 1, 0)) + 2
        self.is_exact = needed * n_latents * 4 <= exact_bytes
        self._capacity = needed if self.is_exact else SKETCH_CAPACITY
        self._largest = torch.full((n_latents, self._capacity), -math.inf, device=device)
        self._histogram: Tensor | None = None
        self._lowest_bin = 0
        self.counts = torch.zeros(n_latents, dtype=torch.int64, device=device)
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._n_waiting = 0

    def add(self, latents: Tensor, values: Tensor) -> None:
        """Add positive ``values`` [n] of ``latents`` [n]."""
        latents = latents.long()
        self.counts += torch.bincount(latents, minlength=self.counts.numel())
        if not self.is_exact:
            self._add_to_histogram(latents, values)
        useful = values > self._largest[latents, -1]
        self._waiting.append((latents[useful], values[useful]))
        self._n_waiting += self._waiting[-1][0].numel()
        if self._n_waiting >= FLUSH_ENTRIES:
            self._flush()

    def result(self) -> Tensor:
        """The quantile [n_latents], float32, linearly interpolated; NaN where nothing fired."""
        self._flush()
        above = (1 - self.quantile) * (self.counts - 1).clamp_min(0).double()
        low, high = above.floor().long(), above.ceil().long()
        last = self._capacity - 1
        upper = self._largest.gather(1, low.clamp_max(last)[:, None])[:, 0].double()
        lower = self._largest.gather(1, high.clamp_max(last)[:, None])[:, 0].double()
        result = upper + (above - low) * (lower - upper)
        result[self.counts == 0] = math.nan
        estimated = (high > last).nonzero().flatten()
        for start in range(0, estimated.numel(), BLOCK_LATENTS):
            latents = estimated[start : start + BLOCK_LATENTS]
            result[latents] = self._from_histogram(latents, above[latents])
        return result.float()

    def _flush(self) -> None:
        if not self._n_waiting:
            return
        latents = torch.cat([part[0] for part in self._waiting])
        values = torch.cat([part[1] for part in self._waiting])
        self._waiting, self._n_waiting = [], 0
        order = torch.argsort(values, descending=True)
        order = order[torch.argsort(latents[order], stable=True)]
        latents, values = latents[order], values[order]
        touched, inverse, counts = torch.unique_consecutive(
            latents, return_inverse=True, return_counts=True
        )
        rank = torch.arange(latents.numel(), device=latents.device)
        rank -= (counts.cumsum(0) - counts)[inverse]
        kept = rank < self._capacity
        inverse, rank, values = inverse[kept], rank[kept], values[kept]
        ends = torch.searchsorted(inverse, torch.arange(touched.numel() + 1, device=values.device))
        for start in range(0, touched.numel(), BLOCK_LATENTS):
            block = touched[start : start + BLOCK_LATENTS]
            part = slice(int(ends[start]), int(ends[start + block.numel()]))
            width = int(rank[part].max()) + 1
            fresh = torch.full((block.numel(), width), -math.inf, device=values.device)
            fresh[inverse[part] - start, rank[part]] = values[part]
            merged = torch.cat([self._largest[block], fresh], 1)
            self._largest[block] = merged.topk(self._capacity, dim=1, sorted=True).values

    def _add_to_histogram(self, latents: Tensor, values: Tensor) -> None:
        if not values.numel():
            return
        n_bins = OCTAVES * BINS_PER_OCTAVE
        largest = math.ceil(math.log2(float(values.max())))
        lowest_bin = (largest + HEADROOM_OCTAVES - OCTAVES) * BINS_PER_OCTAVE
        if self._histogram is None:
            self._lowest_bin = lowest_bin
            self._histogram = torch.zeros(
                self.counts.numel() * n_bins, dtype=torch.int32, device=values.device
            )
        elif largest * BINS_PER_OCTAVE >= self._lowest_bin + n_bins:
            self._raise_histogram(lowest_bin)
        bins = (values.double().log2() * BINS_PER_OCTAVE).floor().long() - self._lowest_bin
        index = latents * n_bins + bins.clamp_(0, n_bins - 1)
        self._histogram.index_add_(0, index, torch.ones_like(index, dtype=torch.int32))

    def _raise_histogram(self, lowest_bin: int) -> None:
        """Make room above: what falls below the new lowest bin is counted in it."""
        assert self._histogram is not None
        shift, self._lowest_bin = lowest_bin - self._lowest_bin, lowest_bin
        for rows in self._histogram.view(self.counts.numel(), -1).split(BLOCK_LATENTS):
            before = rows.clone()
            rows.zero_()
            rows[:, 0] = before[:, : shift + 1].sum(1)
            kept = before[:, shift + 1 :]
            rows[:, 1 : 1 + kept.shape[1]] = kept

    def _from_histogram(self, latents: Tensor, above: Tensor) -> Tensor:
        """Geometric middle of the bin that holds the value with ``above`` values over it."""
        assert self._histogram is not None
        counts = self._histogram.view(self.counts.numel(), -1)[latents]
        over = counts.flip(1).cumsum(1)
        from_top = torch.searchsorted(over, above.long()[:, None], right=True)[:, 0]
        number = counts.shape[1] - 1 - from_top + self._lowest_bin
        return torch.exp2((number.double() + 0.5) / BINS_PER_OCTAVE)
