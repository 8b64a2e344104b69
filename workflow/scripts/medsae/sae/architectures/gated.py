"""Gated (Rajamanoharan et al. 2024a): which latents fire and how strongly, apart.

    π = (x − b_pre) W_encᵀ + b_enc                     gate
    m = exp(r_mag) ⊙ ((x − b_pre) W_encᵀ) + b_mag      magnitude
    z = 1[π > 0] · ReLU(m)
    Loss: mean ‖x − x̂‖² + λ mean Σ_j ReLU(π_j) + mean ‖x − x̂(ReLU(π))‖²

In the last term, which trains the gate, the decoder and its b_pre are held fixed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medsae.sae import sharding
from medsae.sae.architectures.registry import register
from medsae.sae.config import SAEConfig
from medsae.sae.model import Objective, SparseAutoencoder
from medsae.sae.selection import above_threshold
from medsae.sae.sparse import Code, Pattern, decode


@dataclass(frozen=True)
class GatedOptions:
    """``l1_coefficient``: λ."""

    l1_coefficient: float = 3e-4


@register("gated")
class Gated(SparseAutoencoder):
    Options = GatedOptions
    uses_auxk = False

    def __init__(self, config: SAEConfig, d_model: int) -> None:
        super().__init__(config, d_model)
        self.r_mag = nn.Parameter(torch.zeros(self.n_latents))
        self.b_mag = nn.Parameter(torch.zeros(self.n_latents))

    @torch.no_grad()
    def gate(self, centred: Tensor) -> Code:
        pattern, known = above_threshold(centred, self.W_enc, self.b_enc, 0.0)
        return Code(
            pattern, self._magnitude(self.pre_activations_at(centred, pattern, known), pattern)
        )

    def objective(self, x: Tensor) -> Objective:
        centred = x - self.b_pre.detach()
        pattern, known = above_threshold(centred, self.W_enc, self.b_enc, 0.0, self.arithmetic)
        gate = self.pre_activations_at(centred, pattern, known)
        values = self._magnitude(gate, pattern)
        error = self.decode(values, pattern).sub_(x)
        by_gate = decode(gate.relu(), pattern, self.W_dec.detach()).sub_(centred)
        terms = {
            "mse": self.squared_error(error),
            "l1": self.options.l1_coefficient * sharding.summed(gate.relu().sum()) / x.shape[0],
            "gate_mse": self.squared_error(by_gate),
        }
        return Objective(error, Code(pattern, values), terms)

    def _magnitude(self, gate: Tensor, pattern: Pattern) -> Tensor:
        columns = pattern.columns
        product = gate - self.b_enc[columns]
        return (self.r_mag.exp()[columns] * product + self.b_mag[columns]).relu()
