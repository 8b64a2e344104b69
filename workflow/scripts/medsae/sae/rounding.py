"""Pre-activations from rows rounded to 8 bits, and how far they may be from the exact ones.

Processors with integer dot products multiply int8 several times faster than float32. Every
token is rounded to 8 bits with a scale of its own, the latents with one for all; b_enc is a
further dimension of both. The product of integers is exact, so the error is that of rounding
alone. While most entries are several steps long it is uniform, with a standard deviation of
scale / √12 in each dimension, and ``RoundedBatch.slack`` is five standard deviations of the sum.
What is near enough to be wrong is computed again in float32 by those who select.

A dimension much larger than the others, which residual streams have, would take the 8 bits for
itself. Both sides are rotated first, which leaves their products as they are and spreads it out.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from medsae.sae.products import block_rows, row_blocks

LARGEST = 127
ROTATED = 16  # dimensions at a time
DEVIATIONS = 5.0  # one in three million goes further upwards
LARGEST_STEP = 0.25  # of a token's mean entry, for its rounding to count as uniform
MOST_SLACK = 0.2  # of how far a token's pre-activations spread, to be of any use


class RoundedBatch:
    """Tokens x − b_pre [n_tokens, d] and W_enc [n_latents, d], rounded.

    ``unit`` and ``slack`` [n_tokens, 1] are what one means in a token's ``scores``, and how far
    the pre-activations may be off: infinitely where a few entries dwarf the others. ``limit`` is
    larger than any score. If the batch ``is_too_rough``, most tokens have too much slack.
    """

    def __init__(self, centred: Tensor, weight: Tensor, bias: Tensor) -> None:
        tiny = torch.finfo(centred.dtype).tiny
        tokens, latents = _Extent(centred), _Extent(weight)
        of_latents, of_bias = latents.largest.amax(), bias.abs().amax()
        # What b_enc is multiplied with, as large among a token's entries as b_enc among a latent's.
        typical = tokens.largest.mean().clamp_min(tiny)
        one = (of_bias * typical / of_latents.clamp_min(tiny)).sqrt().clamp_min(tiny)
        token_scale = torch.maximum(tokens.largest, one) / LARGEST
        latent_scale = torch.maximum(of_latents, of_bias / one).clamp_min(tiny) / LARGEST
        latent_norm = torch.hypot(latents.norm, (bias / one)[:, None]).amax()
        error = torch.hypot(token_scale * latent_norm, latent_scale * torch.hypot(tokens.norm, one))
        slack = error * (DEVIATIONS / math.sqrt(12))
        self.slack = slack.masked_fill(token_scale > LARGEST_STEP * tokens.mean, torch.inf)
        spread = tokens.norm * (latents.norm.mean() / math.sqrt(weight.shape[1]))
        self.is_too_rough = not bool((self.slack <= MOST_SLACK * spread).double().mean() > 0.5)
        self.unit = token_scale * latent_scale
        self._tokens = _rounded(centred, token_scale, one)
        self._latents = _rounded(weight, latent_scale.expand(weight.shape[0], 1), bias / one)
        self.limit = LARGEST**2 * self._latents.shape[1] + 1

    def scores(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield (tokens, pre-activations / unit, int32 [block, n_latents]) block by block.

        Each block overwrites the one before.
        """
        n_tokens, n_latents = self._tokens.shape[0], self._latents.shape[0]
        size = block_rows(n_latents * torch.int32.itemsize, self._tokens.device)
        block = self._tokens.new_empty(min(n_tokens, size), n_latents, dtype=torch.int32)
        for start in range(0, n_tokens, size):
            rows = slice(start, min(n_tokens, start + size))
            out = block[: rows.stop - start]
            yield rows, torch._int_mm(self._tokens[rows], self._latents.T, out=out)


class _Extent:
    """Largest and mean absolute entry, and length, each [n, 1], of every rotated row [n, d]."""

    def __init__(self, rows: Tensor) -> None:
        self.largest, self.mean, self.norm = (rows.new_empty(len(rows), 1) for _ in range(3))
        rotation = _rotation(rows)
        for part, largest, mean, norm in row_blocks(rows, self.largest, self.mean, self.norm):
            entries = _rotated(part, rotation).abs_()
            torch.amax(entries, 1, keepdim=True, out=largest)
            torch.mean(entries, 1, keepdim=True, out=mean)
            torch.linalg.vector_norm(entries, dim=1, keepdim=True, out=norm)


def _rounded(rows: Tensor, scale: Tensor, last: Tensor) -> Tensor:
    """Rotated ``rows`` [n, d] and ``last``, [n] or [], over ``scale`` [n, 1], as int8."""
    n, d = rows.shape
    whole = rows.new_zeros(n, -(-(d + 1) // ROTATED) * ROTATED, dtype=torch.int8)
    rotation = _rotation(rows)
    for part, divisor, target in row_blocks(rows, scale, whole):
        target[:, :d] = _rotated(part, rotation).div_(divisor).round_()
    whole[:, d] = (last / scale[:, 0]).round_()
    return whole


def _rotated(rows: Tensor, rotation: Tensor) -> Tensor:
    return (rows.reshape(-1, rotation.shape[0]) @ rotation).view(rows.shape)


def _rotation(rows: Tensor) -> Tensor:
    """Hadamard's orthogonal matrix, ±1/√n, of as many of the dimensions as can be together."""
    matrix, sign = torch.ones(1, 1), torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    while matrix.shape[0] < math.gcd(rows.shape[1], ROTATED):
        matrix = torch.kron(sign, matrix)
    return (matrix / math.sqrt(matrix.shape[0])).to(rows)
