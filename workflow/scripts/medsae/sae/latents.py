"""What is known of every latent after training: how often it fires, how alone it is."""

from pathlib import Path

import polars as pl
import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional

from medsae.io import atomic_path
from medsae.sae import parallel, sharding
from medsae.sae.model import SparseAutoencoder
from medsae.sae.validate import Validation

BLOCK_ROWS = 1024
QUANTILES = (10, 50, 90, 99)
RAREST = 1e-9  # stands for 0 on a logarithmic scale


def write_latents(
    path: Path, model: SparseAutoencoder, validation: Validation
) -> pl.DataFrame | None:
    """Write ``latents.parquet``: latent_id, firings, frequency, max_decoder_cosine.

    ``firings`` counts validation tokens on which the latent fired; ``frequency`` is their
    share; ``max_decoder_cosine`` is the cosine with the nearest other decoder row. All
    processes call this; the first writes the table and returns it.
    """
    n = validation.firings.numel()
    if parallel.shards_batches() and parallel.rank() > 0:
        return None
    cosines = sharding.everywhere(max_decoder_cosines(model.W_dec.detach())).cpu()
    if parallel.rank() > 0:
        return None
    frame = pl.DataFrame(
        {
            "latent_id": torch.arange(n).numpy(),
            "firings": validation.firings.numpy(),
            "frequency": (validation.firings.double() / validation.n_tokens).numpy(),
            "max_decoder_cosine": cosines.numpy(),
        }
    )
    with atomic_path(path) as temporary:
        frame.write_parquet(temporary)
    return frame


def summary_of(latents: pl.DataFrame) -> dict[str, float | None]:
    """How the frequencies and cosines of ``write_latents`` are distributed, for the metrics."""
    frequency, cosine = latents["frequency"], latents["max_decoder_cosine"]
    return {
        **{f"frequency_p{q}": frequency.quantile(q / 100, "linear") for q in QUANTILES},
        **{f"decoder_cosine_p{q}": cosine.quantile(q / 100, "linear") for q in QUANTILES},
    }


def max_decoder_cosines(weight: Tensor) -> Tensor:
    """Cosine [n_latents] of each row of ``weight`` [n_latents, d] with its nearest other row.

    Where processes share the latents, each gives its rows and receives the cosines of its own
    rows with all others.
    """
    directions = functional.normalize(weight, dim=1)
    nearest = torch.empty(weight.shape[0], device=weight.device)
    for start in range(0, weight.shape[0], BLOCK_ROWS):
        block = directions[start : start + BLOCK_ROWS] @ directions.T
        own = torch.arange(block.shape[0], device=weight.device)
        block[own, start + own] = -1
        nearest[start : start + block.shape[0]] = block.amax(1)
    return _nearest_of_all(directions, nearest) if parallel.shards_latents() else nearest


def _nearest_of_all(directions: Tensor, nearest: Tensor) -> Tensor:
    """``nearest`` among the rows of this process, made nearest among those of all."""
    counts = parallel.gathered(torch.full((1,), directions.shape[0], device=nearest.device))
    for other, count in enumerate(counts):
        for start in range(0, int(count), BLOCK_ROWS):
            rows = directions[start : start + BLOCK_ROWS].contiguous()
            if other != parallel.rank():
                rows = directions.new_empty(
                    min(BLOCK_ROWS, int(count) - start), directions.shape[1]
                )
            dist.broadcast(rows, other)
            if other != parallel.rank():
                torch.maximum(nearest, (directions @ rows.T).amax(1), out=nearest)
    return nearest
