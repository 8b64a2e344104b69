"""TopK (Gao et al. 2024): z = ReLU of the k largest pre-activations of each token.

Loss: mean (x − x̂)² / Var(x); the trainer adds AuxK.
"""

import torch
from torch import Tensor

from medsae.sae.architectures.registry import register
from medsae.sae.model import Objective, SparseAutoencoder
from medsae.sae.selection import top_k_per_token
from medsae.sae.sparse import Code


@register("topk")
class TopK(SparseAutoencoder):
    anneals_k = True

    @torch.no_grad()
    def gate(self, centred: Tensor) -> Code:
        pattern, known = top_k_per_token(centred, self.W_enc, self.b_enc, self.config.k)
        return Code(pattern, self.pre_activations_at(centred, pattern, known).relu())

    def objective(self, x: Tensor) -> Objective:
        centred = x - self.b_pre.detach()
        pattern, known = top_k_per_token(centred, self.W_enc, self.b_enc, self.k, self.arithmetic)
        values = self.pre_activations_at(centred, pattern, known).relu()
        error = self.decode(values, pattern).sub_(x)
        return Objective(error, Code(pattern, values), {"mse": self.scaled_error(error)})
