"""Resampling of dead latents (Bricken et al. 2023).

A dead latent starts again as the direction of an input that is badly reconstructed: inputs
are drawn with probability ∝ ‖x − x̂‖⁴, the decoder row becomes the unit vector of x − b_pre,
the encoder row that vector at a fifth of the living encoder rows' mean norm, the bias 0.
Its optimiser moments start at 0. Inputs are drawn from the batch of all processes together, so
that any number of them draws the same.
"""

import torch
from torch import Tensor
from torch.nn import functional

from medsae.sae import parallel, sharding
from medsae.sae.model import SparseAutoencoder

ENCODER_SHARE = 0.2


@torch.no_grad()
def resample(
    model: SparseAutoencoder,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    error: Tensor,
    dead: Tensor,
    seed: int,
) -> None:
    """Restart the latents numbered ``dead`` from the batch x [n, d], with ``error`` x̂ − x.

    Of several processes all call this, with the same ``dead`` where each holds every latent.
    """
    losses = parallel.of_whole_batch(error.square().sum(1).square())
    alive = torch.ones(model.n_latents, dtype=torch.bool, device=x.device)
    alive[dead] = False
    all_dead = ~sharding.everywhere(alive)
    n_dead = int(all_dead.sum())
    if not n_dead or not float(losses.sum()) > 0:
        return
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(losses.cpu(), n_dead, replacement=True, generator=generator)
    place = sharding.own(all_dead.cumsum(0) - 1)[dead]
    inputs = parallel.rows_of_whole_batch(x, drawn.to(x.device)[place])
    directions = functional.normalize(inputs - model.b_pre, dim=1)
    counted = alive if n_dead < all_dead.numel() else torch.ones_like(alive)
    norms = torch.linalg.vector_norm(model.W_enc, dim=1)
    norm = sharding.total(norms[counted].sum()) / sharding.total(counted.sum())
    model.W_dec[dead] = directions
    model.W_enc[dead] = ENCODER_SHARE * norm * directions
    model.b_enc[dead] = 0
    for parameter in (model.W_dec, model.W_enc, model.b_enc):
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value[dead] = 0
