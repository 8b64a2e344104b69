"""From raw activations to what an SAE sees, and back.

``token``       x̃ = (x − mean_d x) / max(‖x − mean_d x‖, 1e-8), per token
``dataset``     x̃ = (x − μ) · s, with μ the training mean and s such that E‖x̃‖² = d
``none``        x̃ = x
``layer_norm``  x̃ = (x − mean_d x) / (σ + 1e-5), σ with d − 1: SAELens's, for its checkpoints
"""

from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-8
LAYER_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Statistics:
    """x = x̃ · scale + shift; shapes [n, 1] for ``token`` and ``layer_norm``, else [d] and [].

    For ``layer_norm`` up to its ε: SAELens multiplies by σ, and so does this.
    """

    shift: Tensor
    scale: Tensor

    def restore(self, normalized: Tensor) -> Tensor:
        return normalized * self.scale + self.shift


def normalize(raw: Tensor, kind: str, mean: Tensor, scale: Tensor) -> tuple[Tensor, Statistics]:
    """Normalised ``raw`` [n, d] in float32, and what undoes it.

    ``mean`` [d] and ``scale`` [] are the fitted statistics of ``dataset``; other kinds do
    not use them.
    """
    raw = raw.float()
    if kind in ("token", "layer_norm"):
        shift = raw.mean(1, keepdim=True)
        centred = raw - shift
        if kind == "layer_norm":
            sigma = centred.std(1, keepdim=True)
            return centred.div_(sigma + LAYER_NORM_EPSILON), Statistics(shift, sigma)
        norm = torch.linalg.vector_norm(centred, dim=1, keepdim=True).clamp_min(EPSILON)
        return centred.div_(norm), Statistics(shift, norm)
    if kind == "dataset":
        return (raw - mean) / scale, Statistics(mean, scale)
    return raw, Statistics(torch.zeros_like(mean), torch.ones_like(scale))


def fit_dataset_statistics(sample: Tensor) -> tuple[Tensor, Tensor]:
    """(mean [d], scale []) of ``sample`` [n, d] such that E‖(x − mean) / scale‖² = d."""
    sample = sample.double()
    mean = sample.mean(0)
    scale = ((sample - mean).square().sum(1).mean() / sample.shape[1]).sqrt()
    return mean.float(), scale.clamp_min(EPSILON).float()
