"""Selections from the whole product, a block of tokens at a time.

All take x − b_pre [n_tokens, d], W_enc [n_latents, d] and b_enc [n_latents].
"""

import torch
from torch import Tensor

from medsae.sae.partition import largest_columns
from medsae.sae.products import blocks_of_pre_activations
from medsae.sae.sparse import Pattern, sampled_product


def top_k(
    centred: Tensor, weight: Tensor, bias: Tensor, k: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Latents, int32, and values of the ``k`` largest of each token [n_tokens, k]."""
    columns = torch.empty(centred.shape[0], k, dtype=torch.int32, device=centred.device)
    values = torch.empty(centred.shape[0], k, dtype=dtype, device=centred.device)
    for start, block in blocks_of_pre_activations(centred, weight, bias, dtype):
        rows = slice(start, start + block.shape[0])
        index = largest_columns(block, k)
        columns[rows] = index
        torch.gather(block, 1, index, out=values[rows])
    return columns, values


def above(
    centred: Tensor, weight: Tensor, bias: Tensor, threshold: Tensor | float, dtype: torch.dtype
) -> tuple[Pattern, Tensor]:
    """All above ``threshold``, one number or one per latent, and their values in ``dtype``."""
    entries = Entries(centred.shape[0], weight.shape[0], centred.device)
    values = []
    for start, block in blocks_of_pre_activations(centred, weight, bias, dtype):
        values.append(block.flatten()[entries.add(start, block > threshold)])
    return entries.pattern(), torch.cat(values) if values else centred.new_zeros(0)


def values_at(pattern: Pattern, centred: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Pre-activations at the entries of ``pattern`` [n_entries], in the type of ``centred``."""
    return sampled_product(pattern, centred, weight) + bias[pattern.columns]


class Entries:
    """Collects a pattern from the masks of one block of tokens after another."""

    def __init__(self, n_tokens: int, n_latents: int, device: torch.device) -> None:
        self._pointers = torch.zeros(n_tokens + 1, dtype=torch.int32, device=device)
        self._columns: list[Tensor] = []
        self._n_latents, self.found = n_latents, 0

    def add(self, start: int, mask: Tensor) -> Tensor:
        """Take the entries that ``mask`` [block, n_latents] marks, for the tokens from ``start``.

        Returns their positions in the flattened block.
        """
        flat = mask.flatten().nonzero().flatten()
        ends = torch.arange(1, mask.shape[0] + 1, device=flat.device) * self._n_latents
        rows = slice(start + 1, start + 1 + mask.shape[0])
        self._pointers[rows] = self.found + torch.searchsorted(flat, ends)
        self._columns.append((flat % self._n_latents).int())
        self.found += flat.numel()
        return flat

    def pattern(self) -> Pattern:
        columns = torch.cat(self._columns) if self._columns else self._pointers[:0]
        return Pattern(self._pointers, columns, self._n_latents)
