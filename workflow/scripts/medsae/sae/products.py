"""The one product that has to be dense, in blocks, at the best rate that stays exact.

pre = (x − b_pre) W_encᵀ + b_enc is computed for a block of tokens at a time and consumed
while it is in cache, so a full [n_tokens, n_latents] matrix never exists.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

CPU_BLOCK_BYTES = 10 << 20
GPU_BLOCK_BYTES = 1 << 30


def blocks_of_pre_activations(
    centred: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype
) -> Iterator[tuple[int, Tensor]]:
    """Yield (first token, pre-activations [block, n_latents] in ``dtype``).

    Each block overwrites the one before.
    """
    n_tokens, n_latents = centred.shape[0], weight.shape[0]
    limit = GPU_BLOCK_BYTES if centred.is_cuda else CPU_BLOCK_BYTES
    size = max(1, min(n_tokens, max(128, limit // (n_latents * dtype.itemsize))))
    block = torch.empty(size, n_latents, dtype=dtype, device=centred.device)
    centred, weight, bias = centred.to(dtype), weight.to(dtype), bias.to(dtype)
    for start in range(0, n_tokens, size):
        part = centred[start : start + size]
        yield start, torch.addmm(bias, part, weight.T, out=block[: part.shape[0]])
