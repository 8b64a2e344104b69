"""The one product that has to be dense, in blocks, at the best rate that stays exact.

pre = (x − b_pre) W_encᵀ + b_enc is computed for a block of tokens at a time and consumed
while it is in cache, so a full [n_tokens, n_latents] matrix never exists.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

CPU_BLOCK_BYTES = 10 << 20
GPU_BLOCK_BYTES = 1 << 30
BLOCK_MULTIPLE = 128  # rows; products of other heights are up to a tenth slower
CACHE_BYTES = 4 << 20  # the second level of two cores; 2 and 3 MB are little slower


def blocks_of_pre_activations(
    centred: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype
) -> Iterator[tuple[int, Tensor]]:
    """Yield (first token, pre-activations [block, n_latents] in ``dtype``).

    Each block overwrites the one before.
    """
    n_tokens, n_latents = centred.shape[0], weight.shape[0]
    size = max(1, min(n_tokens, block_rows(n_latents * dtype.itemsize, centred.device)))
    block = torch.empty(size, n_latents, dtype=dtype, device=centred.device)
    centred, weight, bias = centred.to(dtype), weight.to(dtype), bias.to(dtype)
    # On CPU addmm first writes the bias to memory; in bfloat16 it alone adds before rounding.
    by_parts = not block.is_cuda and dtype != torch.bfloat16
    for start in range(0, n_tokens, size):
        part = centred[start : start + size]
        out = block[: part.shape[0]]
        if by_parts:
            yield start, torch.mm(part, weight.T, out=out).add_(bias)
        else:
            yield start, torch.addmm(bias, part, weight.T, out=out)


def block_rows(row_bytes: int, device: torch.device) -> int:
    """How many tokens a block has, if each takes ``row_bytes``."""
    limit = GPU_BLOCK_BYTES if device.type == "cuda" else CPU_BLOCK_BYTES
    return max(1, limit // max(1, row_bytes) // BLOCK_MULTIPLE) * BLOCK_MULTIPLE


def row_blocks(*matrices: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of each matrix [n, any width], a block at a time.

    On CPU they are so few that they stay in cache, together, between two passes.
    """
    size = matrices[0].shape[0]
    if not matrices[0].is_cuda:
        size = CACHE_BYTES // max(1, sum(m.shape[1] * m.itemsize for m in matrices))
    return zip(*(matrix.split(max(1, size)) for matrix in matrices), strict=True)
