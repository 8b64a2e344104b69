"""JumpReLU (Rajamanoharan et al. 2024b): a threshold for every latent, trained through a jump.

    z = u · 1[u > θ],  θ = exp(log_threshold)
    Loss: mean ‖x − x̂‖² + λ mean ‖z‖₀

The step has no gradient, so a kernel of width ε around θ stands in for its derivative:

    ∂z/∂θ ≈ −(θ/ε) K((u − θ)/ε),   ∂1[u > θ]/∂θ ≈ −(1/ε) K((u − θ)/ε),   K(t) = 1[|t| < 1/2]
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medsae.sae import sharding
from medsae.sae.architectures.registry import register
from medsae.sae.config import SAEConfig
from medsae.sae.model import Objective, SparseAutoencoder
from medsae.sae.selection import above_threshold
from medsae.sae.sparse import Code


@dataclass(frozen=True)
class JumpReLUOptions:
    """``l0_coefficient``: λ; ``bandwidth``: ε; ``initial_threshold``: θ at the start."""

    l0_coefficient: float = 1e-3
    bandwidth: float = 1e-3
    initial_threshold: float = 1e-3


@register("jumprelu")
class JumpReLU(SparseAutoencoder):
    Options = JumpReLUOptions
    uses_auxk = False

    def __init__(self, config: SAEConfig, d_model: int) -> None:
        super().__init__(config, d_model)
        start = math.log(self.options.initial_threshold)
        self.log_threshold = nn.Parameter(torch.full((self.n_latents,), start))

    @torch.no_grad()
    def gate(self, centred: Tensor) -> Code:
        threshold = self.log_threshold.exp()
        pattern, known = above_threshold(centred, self.W_enc, self.b_enc, threshold)
        return Code(pattern, self.pre_activations_at(centred, pattern, known))

    def objective(self, x: Tensor) -> Objective:
        centred = x - self.b_pre.detach()
        width, threshold = self.options.bandwidth, self.log_threshold.exp()
        # what is just below its threshold is not active but moves the threshold
        near = (threshold.detach() - width / 2).clamp_min(0.0)
        pattern, known = above_threshold(centred, self.W_enc, self.b_enc, near, self.arithmetic)
        u = self.pre_activations_at(centred, pattern, known)
        values, active = _Jump.apply(u, threshold[pattern.columns], width)
        error = self.decode(values, pattern).sub_(x)
        terms = {
            "mse": self.squared_error(error),
            "l0": self.options.l0_coefficient * sharding.summed(active.sum()) / x.shape[0],
        }
        return Objective(error, Code(pattern, values), terms)


class _Jump(torch.autograd.Function):
    """(u · 1[u > θ], 1[u > θ]) with the kernel's gradients for θ."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, threshold: Tensor, width: float) -> tuple[Tensor, Tensor]:
        active = (u > threshold).to(u.dtype)
        ctx.save_for_backward(u, threshold, active)
        ctx.width = width
        return u * active, active.clone()

    @staticmethod
    def backward(ctx: Any, g_value: Tensor, g_active: Tensor) -> tuple[Tensor, Tensor, None]:
        u, threshold, active = ctx.saved_tensors
        near = ((u - threshold).abs() < ctx.width / 2).to(u.dtype) / ctx.width
        return g_value * active, -near * (threshold * g_value + g_active), None
