"""Matryoshka with a k for every level, as SAIL trains it.

Level i has the first m_i latents and a BatchTopK of its own with k_i over them, so each
level is a whole BatchTopK autoencoder and the levels share weights:

    x̂_i = b_pre + BatchTopK_{k_i}(u_{1…m_i}) W_dec[1…m_i]
    Loss: mean over levels of mean (x − x̂_i)² / Var(x); the trainer adds AuxK.

Codes and reconstructions given out are those of the last level; ``gate_level`` has the
others. Every level has its own inference threshold.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from medsae.io import UserError
from medsae.sae import sharding
from medsae.sae.architectures.batch_topk import THRESHOLD_DECAY, UNSET, move_threshold
from medsae.sae.architectures.matryoshka import check_prefixes
from medsae.sae.architectures.registry import register
from medsae.sae.config import SAEConfig
from medsae.sae.model import Objective, SparseAutoencoder
from medsae.sae.schedule import averaging_weight
from medsae.sae.selection import Selection, above_threshold, top_k_per_batch
from medsae.sae.sparse import Code, decode, pre_activations


@dataclass(frozen=True)
class LevelOptions:
    """``sizes``: latents of each level, rising to ``n_latents``; ``level_k``: k of each
    level, the last of them ``k``."""

    sizes: tuple[int, ...]
    level_k: tuple[int, ...]


@register("matryoshka_levels")
class MatryoshkaLevels(SparseAutoencoder):
    selects_by_batch = True
    Options = LevelOptions
    thresholds: Tensor

    def __init__(self, config: SAEConfig, d_model: int) -> None:
        super().__init__(config, d_model)
        self.sizes = check_prefixes(self.options.sizes, config.n_latents)
        self.level_k = tuple(self.options.level_k)
        fits = len(self.level_k) == len(self.sizes) and self.level_k[-1] == config.k
        if not fits or any(k > m for k, m in zip(self.level_k, self.sizes, strict=False)):
            raise UserError(
                "SAEConfig: level_k needs one k for every level, at most the level's size, "
                "and the last must be k."
            )
        self.register_buffer("thresholds", torch.full((len(self.sizes),), UNSET))
        self.smallest = [None] * len(self.sizes)

    @torch.no_grad()
    def gate(self, centred: Tensor) -> Code:
        return self.gate_level(centred, len(self.sizes) - 1)

    @torch.no_grad()
    def gate_level(self, centred: Tensor, level: int) -> Code:
        """Codes of level ``level``, from 0, over its own latents."""
        weight, bias = self._part(level)
        if float(self.thresholds[level]) == UNSET:
            selected = top_k_per_batch(centred, weight, bias, self.level_k[level])[0]
        else:
            selected = above_threshold(centred, weight, bias, self.thresholds[level])
        return self._code(centred, selected, level)

    def objective(self, x: Tensor) -> Objective:
        centred = x - self.b_pre.detach()
        terms, fired = {}, []
        for level, size in enumerate(self.sizes):
            weight, bias = self._part(level)
            selected, self.smallest[level] = top_k_per_batch(
                centred, weight, bias, self.level_k[level], self.arithmetic, self.smallest[level]
            )
            code = self._code(centred, selected, level)
            held = sharding.local_rows(0, size)
            error = decode(code.values, code.pattern, self.W_dec, held).add_(self.b_pre).sub_(x)
            terms[f"mse_{size}"] = self.scaled_error(error) / len(self.sizes)
            fired.append(code.pattern.columns)
        return Objective(error, code, terms, torch.cat(fired))

    @torch.no_grad()
    def after_step(self, code: Code, step: int) -> None:
        weight = averaging_weight(THRESHOLD_DECAY, step)
        for threshold, smallest in zip(self.thresholds, self.smallest, strict=True):
            if smallest is not None:
                move_threshold(threshold, smallest, weight)

    @torch.no_grad()
    def see_held_out(self, x: Tensor, weight: float) -> None:
        centred = x - self.b_pre
        for level, k in enumerate(self.level_k):
            smallest = top_k_per_batch(centred, *self._part(level), k)[1]
            move_threshold(self.thresholds[level], smallest, weight)

    def _part(self, level: int) -> tuple[Tensor, Tensor]:
        held = sharding.local_rows(0, self.sizes[level])
        return self.W_enc.detach()[held], self.b_enc.detach()[held]

    def _code(self, centred: Tensor, selected: Selection, level: int) -> Code:
        pattern, known = selected
        values = pre_activations(
            centred, self.b_pre, self.W_enc, self.b_enc, pattern, known,
            sharding.local_rows(0, self.sizes[level]),
        )  # fmt: skip
        return Code(pattern, values.relu())
