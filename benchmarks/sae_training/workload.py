"""The workload that every trainer is given: activations from known atoms.

A row is a sum of k of n_latents unit atoms, drawn with frequencies falling as a power of
their rank, plus noise and an offset far from the origin, as residual streams have.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Workload:
    n_train: int = 200_000
    n_held_out: int = 8_192
    d_model: int = 576
    n_latents: int = 4_608
    k: int = 32
    batch_size: int = 2_048
    learning_rate: float = 1e-3
    threads: int = 2
    seed: int = 0
    # Not that of the trainers: with it a decoder of normal rows begins as the atoms themselves.
    data_seed: int = 1_000_003
    device: str = "cpu"


NOISE = 0.15
OFFSET = 1.0
BLOCK = 4_096


def write(path: Path, load: Workload) -> None:
    """Write ``train`` and ``held_out`` rows to one safetensors file."""
    train, held_out = make(load)
    save_file({"train": train, "held_out": held_out.clone()}, path)


def make(load: Workload) -> tuple[Tensor, Tensor]:
    """(training rows [n_train, d_model], held-out rows [n_held_out, d_model])."""
    generator = torch.Generator().manual_seed(load.data_seed)
    shape = (load.n_latents, load.d_model)
    atoms = functional.normalize(torch.randn(shape, generator=generator), dim=1)
    frequency = 1 / (1 + torch.arange(load.n_latents, dtype=torch.float32))
    offset = OFFSET * torch.randn(load.d_model, generator=generator)
    n = load.n_train + load.n_held_out
    rows = torch.empty(n, load.d_model)
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        chosen = torch.multinomial(frequency.expand(size, -1), load.k, generator=generator)
        weights = torch.rand(size, load.k, generator=generator) + 0.5
        mixed = functional.embedding_bag(chosen, atoms, per_sample_weights=weights, mode="sum")
        noise = torch.randn(size, load.d_model, generator=generator)
        rows[start : start + size] = mixed + offset + NOISE * noise
    return rows[: load.n_train], rows[load.n_train :]


def read(path: Path) -> tuple[Tensor, Tensor]:
    """What `make` made."""
    tensors = load_file(path)
    return tensors["train"], tensors["held_out"]
