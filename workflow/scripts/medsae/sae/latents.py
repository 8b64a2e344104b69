"""What is known of every latent after training: how often it fires, how alone it is."""

from pathlib import Path

import polars as pl
import torch
from torch import Tensor
from torch.nn import functional

from medsae.io import atomic_path
from medsae.sae.model import SparseAutoencoder
from medsae.sae.validate import Validation

BLOCK_ROWS = 1024


def write_latents(path: Path, model: SparseAutoencoder, validation: Validation) -> None:
    """Write ``latents.parquet``: latent_id, firings, frequency, max_decoder_cosine.

    ``firings`` counts validation tokens on which the latent fired; ``frequency`` is their
    share; ``max_decoder_cosine`` is the cosine with the nearest other decoder row.
    """
    n = validation.firings.numel()
    frame = pl.DataFrame(
        {
            "latent_id": torch.arange(n).numpy(),
            "firings": validation.firings.numpy(),
            "frequency": (validation.firings.double() / validation.n_tokens).numpy(),
            "max_decoder_cosine": max_decoder_cosines(model.W_dec.detach()).cpu().numpy(),
        }
    )
    with atomic_path(path) as temporary:
        frame.write_parquet(temporary)


def max_decoder_cosines(weight: Tensor) -> Tensor:
    """Cosine [n_latents] of each row of ``weight`` [n_latents, d] with its nearest other row."""
    directions = functional.normalize(weight, dim=1)
    nearest = torch.empty(weight.shape[0], device=weight.device)
    for start in range(0, weight.shape[0], BLOCK_ROWS):
        block = directions[start : start + BLOCK_ROWS] @ directions.T
        own = torch.arange(block.shape[0], device=weight.device)
        block[own, start + own] = -1
        nearest[start : start + block.shape[0]] = block.amax(1)
    return nearest
