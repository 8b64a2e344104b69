"""How large a latent's activation usually gets, so that latents can be compared.

feature_scale_j is the 0.999 quantile of the gated, positive activations of latent j; the
normalised value of an activation z is clip(z / feature_scale_j, 0, 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from medsae.io import UserError, atomic_path, progress
from medsae.sae.checkpoint import (
    CALIBRATED_NAME,
    FEATURE_HITS,
    FEATURE_SCALE,
    save_checkpoint,
)
from medsae.sae.config import save_config
from medsae.sae.model import INFERENCE_ROWS, SparseAutoencoder
from medsae.device import fast_float32_products
from medsae.sae.quantile import QuantileSketch
from medsae.store import ActivationStore

CALIBRATION_NAME = "calibration.parquet"
SMALLEST_SCALE = 1e-6
FEW_FIRINGS = 1000  # fewer than these do not place a 0.999 quantile


@dataclass(frozen=True)
class Calibration:
    """Per latent, from ``n_tokens`` calibration tokens; all vectors [n_latents]."""

    feature_scale: Tensor  # float32, ≥ 1e-6; 1e-6 where the latent never fired
    firing_count: Tensor  # int64, tokens with a positive gated activation
    mean_activation: Tensor  # float32, over firings; 0 where none
    max_activation: Tensor  # float32
    few_firings: Tensor  # bool, fewer than 1,000 firings: the scale is uncertain
    n_tokens: int
    quantile: float


@torch.no_grad()
def calibrate(
    sae: SparseAutoencoder, shards: Sequence[str | Path], quantile: float = 0.999
) -> Calibration:
    """Calibrate ``sae`` on the rows of ``shards``, in one pass and bounded memory.

    The error of the quantile is stated in ``medsae.sae.quantile``. Raises ``UserError`` if
    the shards' width is not the SAE's.
    """
    store = ActivationStore(shards)
    if store.n_columns != sae.d_model:
        raise UserError(
            f"{store.shards[0].path}: has {store.n_columns} columns where the SAE reads "
            f"{sae.d_model}; calibrate on the activations it was trained for."
        )
    n, device = sae.config.n_latents, sae.W_enc.device
    sketch = QuantileSketch(n, quantile, store.n_rows, device)
    total = torch.zeros(n, dtype=torch.float64, device=device)
    largest = torch.zeros(n, device=device)
    n_batches = -(-store.n_rows // INFERENCE_ROWS)
    with fast_float32_products():
        for raw in progress(store.batches(INFERENCE_ROWS), "SAE calibration", n_batches):
            code = sae.sparse_code(raw)
            positive = code.values > 0
            latents, values = code.pattern.columns[positive].long(), code.values[positive]
            sketch.add(latents, values)
            total.index_add_(0, latents, values.double())
            largest.scatter_reduce_(0, latents, values, "amax")
    scale = torch.nan_to_num(sketch.result(), nan=0.0).clamp_min(SMALLEST_SCALE)
    return Calibration(
        feature_scale=scale.cpu(),
        firing_count=sketch.counts.cpu(),
        mean_activation=(total / sketch.counts.clamp_min(1)).float().cpu(),
        max_activation=largest.cpu(),
        few_firings=(sketch.counts < FEW_FIRINGS).cpu(),
        n_tokens=store.n_rows,
        quantile=quantile,
    )


def save_calibrated(folder: str | Path, sae: SparseAutoencoder, calibration: Calibration) -> None:
    """Write ``sae.safetensors`` (weights, feature_scale, feature_hits), ``cfg.json`` and
    ``calibration.parquet`` (one row per latent) to ``folder``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    extra = {
        FEATURE_SCALE: calibration.feature_scale,
        FEATURE_HITS: calibration.firing_count,
    }
    frame = pl.DataFrame(
        {
            "latent_id": np.arange(calibration.firing_count.numel()),
            "feature_scale": calibration.feature_scale.numpy(),
            "firing_count": calibration.firing_count.numpy(),
            "firing_rate": (calibration.firing_count.double() / calibration.n_tokens).numpy(),
            "mean_activation": calibration.mean_activation.numpy(),
            "max_activation": calibration.max_activation.numpy(),
            "few_firings": calibration.few_firings.numpy(),
        }
    )
    with atomic_path(folder / CALIBRATION_NAME) as temporary:
        frame.write_parquet(temporary)
    save_config(folder, sae.config, None)
    save_checkpoint(folder / CALIBRATED_NAME, sae, extra)


def normalized_values(values: Tensor, indices: Tensor, feature_scale: Tensor) -> Tensor:
    """clip(z / feature_scale, 0, 1) for values and indices as ``encode`` returns them."""
    return (values / feature_scale.to(values.device)[indices]).clamp(0, 1)
