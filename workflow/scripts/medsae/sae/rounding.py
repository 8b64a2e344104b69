"""Pre-activations from rows rounded to 8 bits, and how far they may be from the exact ones.

Processors with integer dot products multiply int8 several times faster than float32. Every
token is rounded to 8 bits with a scale of its own, the latents with one for all; b_enc is a
further dimension of both. The product of integers is exact, so the error is that of rounding
alone. While most entries are several steps long it is uniform, with a standard deviation of
scale / √12 in each dimension, and ``RoundedBatch.slack`` is five standard deviations of the sum.
What is near enough to be wrong is computed again in float32 by those who select exactly.

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
USUAL_LARGEST = 3.0  # among the entries of a row, in standard deviations
DEVIATIONS = 5.0  # one in three million goes further upwards
LARGEST_STEP = 0.25  # of a token's mean entry, for its rounding to count as uniform
MOST_SLACK = 0.2  # of how far a token's pre-activations spread, to be of any use


class RoundedBatch:
    """Tokens x − b_pre [n_tokens, d] and W_enc [n_latents, d], rounded.

    ``unit`` and ``slack`` [n_tokens, 1] are what one means in a token's ``scores``, and how far
    the pre-activations may be off: infinitely where a few entries dwarf the others. ``limit`` is
    larger than any score. Tokens that ``is_rough`` [n_tokens] marks have too much slack to be of
    use; if the batch ``is_too_rough``, most have.
    """

    def __init__(self, centred: Tensor, weight: Tensor, bias: Tensor) -> None:
        tiny, root = torch.finfo(centred.dtype).tiny, math.sqrt(weight.shape[1])
        largest, latent_norms = _measured(weight)
        token_norms = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
        # What b_enc is multiplied with, as large among a token's entries as b_enc among a latent's.
        of_latents, of_bias = largest.amax(), bias.abs().amax()
        typical = (USUAL_LARGEST / root * token_norms.mean()).clamp_min(tiny)
        one = (of_bias * typical / of_latents.clamp_min(tiny)).sqrt().clamp_min(tiny)
        self._tokens, token_scale, mean = _rounded_each(centred, one)
        latent_scale = torch.maximum(of_latents, of_bias / one).clamp_min(tiny) / LARGEST
        self._latents = _rounded(weight, latent_scale, bias / one)
        longest = torch.hypot(latent_norms, (bias / one)[:, None]).amax()
        error = torch.hypot(token_scale * longest, latent_scale * torch.hypot(token_norms, one))
        slack = error * (DEVIATIONS / math.sqrt(12))
        self.slack = slack.masked_fill(token_scale > LARGEST_STEP * mean, torch.inf)
        spread = token_norms * (latent_norms.mean() / root)
        self.is_rough = (self.slack <= MOST_SLACK * spread).logical_not_().flatten()
        self.is_too_rough = bool(self.is_rough.double().mean() > 0.5)
        self.unit = token_scale * latent_scale
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


def _measured(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Largest absolute entry, and length, each [n, 1], of every rotated row [n, d]."""
    found, rotation = (rows.new_empty(len(rows), 1), rows.new_empty(len(rows), 1)), _rotation(rows)
    for part, largest, length in row_blocks(rows, *found):
        entries = _rotated(part, rotation).abs_()
        torch.amax(entries, 1, keepdim=True, out=largest)
        torch.linalg.vector_norm(entries, dim=1, keepdim=True, out=length)
    return found


def _rounded(rows: Tensor, scale: Tensor, last: Tensor) -> Tensor:
    """Rotated ``rows`` [n, d] and ``last`` [n], over ``scale`` [], as int8."""
    whole, rotation = _empty(rows), _rotation(rows) / scale
    for part, target in row_blocks(rows, whole):
        target[:, : rows.shape[1]] = _rotated(part, rotation).round_()
    whole[:, rows.shape[1]] = (last / scale).round_()
    return whole


def _rounded_each(rows: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated ``rows`` [n, d] and ``last`` [] as int8, each over its own scale.

    Also the scales, and the mean absolute entries, each [n, 1].
    """
    whole, rotation = _empty(rows), _rotation(rows)
    scale, mean = rows.new_empty(len(rows), 1), rows.new_empty(len(rows), 1)
    for part, divisor, average, target in row_blocks(rows, scale, mean, whole):
        entries = _rotated(part, rotation)
        absolute = entries.abs()
        torch.mean(absolute, 1, keepdim=True, out=average)
        torch.maximum(absolute.amax(1, keepdim=True), last, out=divisor).div_(LARGEST)
        target[:, : rows.shape[1]] = entries.div_(divisor).round_()
    whole[:, rows.shape[1]] = (last / scale[:, 0]).round_()
    return whole, scale, mean


def _empty(rows: Tensor) -> Tensor:
    """Room for rounded ``rows`` [n, d] and a further dimension, up to whole rotations."""
    width = -(-(rows.shape[1] + 1) // ROTATED) * ROTATED
    return rows.new_zeros(len(rows), width, dtype=torch.int8)


def _rotated(rows: Tensor, rotation: Tensor) -> Tensor:
    return (rows.reshape(-1, rotation.shape[0]) @ rotation).view(rows.shape)


def _rotation(rows: Tensor) -> Tensor:
    """Hadamard's orthogonal matrix, ±1/√n, of as many of the dimensions as can be together."""
    matrix, sign = torch.ones(1, 1), torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    while matrix.shape[0] < math.gcd(rows.shape[1], ROTATED):
        matrix = torch.kron(sign, matrix)
    return (matrix / math.sqrt(matrix.shape[0])).to(rows)
