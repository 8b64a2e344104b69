"""ReLU with an L1 penalty (Bricken et al. 2023; norm-weighted: Conerly et al. 2024).

    z = ReLU(u)
    Loss: mean ‖x − x̂‖² + λ mean Σ_j z_j [· ‖W_dec[j]‖]

With the norm-weighted penalty the decoder's norms are free; otherwise they are 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from medsae.sae import sharding
from medsae.sae.architectures.registry import register
from medsae.sae.config import SAEConfig
from medsae.sae.model import Objective, SparseAutoencoder
from medsae.sae.selection import above_threshold
from medsae.sae.sparse import Code


@dataclass(frozen=True)
class ReLUOptions:
    """``l1_coefficient``: λ; ``decoder_norm_weighted``: weigh z_j by ‖W_dec[j]‖."""

    l1_coefficient: float = 3e-4
    decoder_norm_weighted: bool = False


@register("relu")
class ReLU(SparseAutoencoder):
    Options = ReLUOptions
    uses_auxk = False

    def __init__(self, config: SAEConfig, d_model: int) -> None:
        super().__init__(config, d_model)
        self.unit_norm_decoder = not self.options.decoder_norm_weighted

    @torch.no_grad()
    def gate(self, centred: Tensor) -> Code:
        pattern, known = above_threshold(centred, self.W_enc, self.b_enc, 0.0)
        return Code(pattern, self.pre_activations_at(centred, pattern, known))

    def objective(self, x: Tensor) -> Objective:
        centred = x - self.b_pre.detach()
        pattern, known = above_threshold(centred, self.W_enc, self.b_enc, 0.0, self.arithmetic)
        values = self.pre_activations_at(centred, pattern, known).relu()
        error = self.decode(values, pattern).sub_(x)
        penalised = values
        if self.options.decoder_norm_weighted:
            norms = torch.linalg.vector_norm(self.W_dec, dim=1)
            penalised = values * norms[pattern.columns]
        terms = {
            "mse": self.squared_error(error),
            "l1": self.options.l1_coefficient * sharding.summed(penalised.sum()) / x.shape[0],
        }
        return Objective(error, Code(pattern, values), terms)
