"""How good a reconstruction is, summed over batches in float64.

FVU   = Σ‖x − x̂‖² / Σ‖x − x̄‖²   fraction of variance unexplained (NMSE about the mean)
NMSE  = Σ‖x − x̂‖² / Σ‖x‖²        as the original MedSAE reports it
L0    = active latents per token

Numerators and denominators are summed apart and divided once; x̄ is the mean over all rows
seen. Both are of the normalised activations that the SAE works on.
"""

import re
import resource
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from medsae.sae import sharding
from medsae.sae.sparse import Code

STATUS = Path("/proc/self/status")
FIRING = 1e-3  # a latent fires when its value is above this (Gao et al. 2024)


@dataclass(frozen=True)
class Quality:
    fvu: float
    nmse: float
    l0: float


class QualityMeter:
    """Running sums over batches; ``shift`` [d] is any point near the data, for precision."""

    def __init__(self, shift: Tensor) -> None:
        self.shift = shift.detach().clone()
        self.reset()

    def reset(self) -> None:
        zero = torch.zeros((), dtype=torch.float64, device=self.shift.device)
        self._error, self._square, self._shifted = zero.clone(), zero.clone(), zero.clone()
        self._sum = torch.zeros_like(self.shift, dtype=torch.float64)
        self._active = zero.clone()
        self._n = 0

    @torch.no_grad()
    def add(self, x: Tensor, error: Tensor, code: Code) -> None:
        """``error`` is x̂ − x [n, d]."""
        shifted = x - self.shift
        self._square += length(x).double().square()
        self._shifted += length(shifted).double().square()
        self._sum += shifted.sum(0)
        self._error += length(error).double().square()
        self._active += (code.values > 0).sum()
        self._n += x.shape[0]

    def state(self) -> Tensor:
        """All sums as one float64 vector, so that processes can add theirs."""
        active = sharding.total(self._active.clone())
        scalars = [self._error, self._square, self._shifted, active]
        count = self._error.new_tensor([float(self._n)])
        return torch.cat([torch.stack(scalars), count, self._sum])

    @staticmethod
    def quality(state: Tensor) -> Quality:
        error, square, shifted, active, n = state[:5].tolist()
        variance = shifted - float(state[5:].square().sum()) / max(n, 1)
        return Quality(
            fvu=error / variance if variance > 0 else float("nan"),
            nmse=error / square if square > 0 else float("nan"),
            l0=active / max(n, 1),
        )


def length(tensor: Tensor) -> Tensor:
    """Euclidean norm []; by rows, since on CPU that of a whole matrix runs on one thread."""
    return torch.linalg.vector_norm(torch.linalg.vector_norm(tensor, dim=-1))


def peak_memory_mb(device: torch.device) -> float:
    """Most memory held so far: of the CUDA device, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if STATUS.exists():  # where it can be read, without what the parent held at the fork
        found = re.search(r"VmHWM:\s+(\d+)", STATUS.read_text(encoding="ascii"))
        if found:
            return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
