"""Where training starts (Gao et al. 2024, appendix A).

b_pre is the geometric median of a sample; decoder rows are random directions; the encoder
is the decoder's transpose, scaled so that random unit inputs are reconstructed at a norm of
``START_NORM``. Gao et al. start at 1. Adam's steps have one size whatever the weights', so
directions that begin short turn faster.
"""

import torch
from torch import Tensor
from torch.nn import functional

from medsae.sae import sharding
from medsae.sae.model import SparseAutoencoder
from medsae.sae.normalization import fit_dataset_statistics
from medsae.sae.sparse import decode

SAMPLE_ROWS = 32_768
SCALE_ROWS = 1024
BLOCK_ROWS = 65_536
START_NORM = 0.4
"""Length of a reconstruction of a random unit input; measured in ``benchmarks/sae_training``."""
EPSILON = 1e-12


@torch.no_grad()
def initialize(model: SparseAutoencoder, raw: Tensor, seed: int) -> None:
    """Initialise ``model`` from a sample of raw activations [n, d], n ≤ 32,768."""
    if model.config.normalization == "dataset":
        mean, scale = fit_dataset_statistics(raw)
        model.input_mean.copy_(mean)
        model.input_scale.copy_(scale)
    x, _ = model.normalize(raw)
    model.b_pre.copy_(geometric_median(x))
    variance = (x - x.mean(0)).square().mean()
    model.loss_scale.copy_(1 / variance.clamp_min(EPSILON))
    generator = torch.Generator().manual_seed(seed)
    n_latents = model.config.n_latents
    for start in range(0, n_latents, BLOCK_ROWS):  # the same numbers however latents are shared
        stop = min(start + BLOCK_ROWS, n_latents)
        directions = torch.randn(stop - start, model.d_model, generator=generator)
        held = sharding.own(functional.normalize(directions, dim=1), start)
        model.W_dec[sharding.local_rows(start, stop)] = held.to(model.W_dec)
    model.W_enc.copy_(model.W_dec)
    probe = torch.randn(SCALE_ROWS, model.d_model, generator=generator).to(x.device)
    code = model.gate(functional.normalize(probe, dim=1))
    norms = torch.linalg.vector_norm(decode(code.values, code.pattern, model.W_dec), dim=1)
    model.W_enc.mul_(START_NORM / norms.mean().clamp_min(EPSILON))


def geometric_median(points: Tensor, max_iterations: int = 100, tolerance: float = 1e-6) -> Tensor:
    """The point [d] with the least total distance to ``points`` [n, d] (Weiszfeld)."""
    points = points.double()
    median = points.mean(0)
    for _ in range(max_iterations):
        distances = torch.linalg.vector_norm(points - median, dim=1).clamp_min(EPSILON)
        weights = 1 / distances
        moved = (weights @ points) / weights.sum()
        step = torch.linalg.vector_norm(moved - median)
        median = moved
        if step <= tolerance * distances.mean():
            break
    return median.float()
