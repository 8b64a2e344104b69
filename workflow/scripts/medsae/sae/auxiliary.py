"""AuxK (Gao et al. 2024): dead latents learn to explain what the living leave over.

    e = x − x̂,  ê = Σ_{j in top k_aux of the dead} u_j W_dec[j],  no bias
    AuxK = Σ‖e − ê‖² / Σ‖e − ē‖²,  NaN → 0

with u the pre-activations of x itself and ē the batch mean of e; e carries no gradient.
"""

import torch
from torch import Tensor

from medsae.sae import parallel
from medsae.sae.model import SparseAutoencoder
from medsae.sae.selection import top_k_per_token
from medsae.sae.sparse import decode, pre_activations


def auxiliary_loss(
    model: SparseAutoencoder, x: Tensor, error: Tensor, dead: Tensor, k_aux: int
) -> Tensor:
    """AuxK [] for a batch x [n, d] with ``error`` x̂ − x.

    ``dead`` are the numbers of the dead latents, at least one.
    """
    residual = -error.detach()
    centred = x - model.b_pre.detach()
    pattern, known = top_k_per_token(
        centred, model.W_enc.detach()[dead], model.b_enc.detach()[dead], k_aux, model.arithmetic
    )
    values = pre_activations(
        centred, model.b_pre, model.W_enc, model.b_enc, pattern, known, rows=dead
    )
    explained = decode(values, pattern, model.W_dec, rows=dead)
    unexplained = (explained - residual).square().sum()
    mean = parallel.averaged(residual.mean(0))
    variance = parallel.averaged((residual - mean).square().sum())
    return torch.nan_to_num(unexplained / variance, nan=0.0, posinf=0.0)
