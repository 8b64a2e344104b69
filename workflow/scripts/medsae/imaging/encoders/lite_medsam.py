"""LiteMedSAM's image encoder: medically trained, 256 values per 4 × 4 pixels."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from medsae.imaging.encoders.base import Preparation
from medsae.imaging.encoders.tiny_vit import NECK, TinyViT, fold_norms

WEIGHTS = "lite_medsam.safetensors"
SIZE = 256
PATCH_GRID = 16
"""Patch tokens are the mean over a 16 × 16 grid: the encoder's own are too many and too alike."""


class LiteMedSam:
    """Embeddings [n, 256]: the mean over the encoder's output."""

    width = NECK
    n_patches = PATCH_GRID**2

    def __init__(self, folder: Path, size: int | None, device: torch.device) -> None:
        self._network = TinyViT()
        self._network.load_state_dict(load_file(folder / WEIGHTS))
        fold_norms(self._network.eval())
        self._network.to(device)
        self._device = device
        self._prepare = Preparation(size or SIZE, mean=(0.0,) * 3, std=(1.0,) * 3)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        images = self._prepare(pixels, self._device, torch.float32)
        tokens = self._network(images.contiguous(memory_format=torch.channels_last))
        patches = functional.adaptive_avg_pool2d(tokens, (PATCH_GRID, PATCH_GRID))
        return tokens.mean((2, 3)).cpu(), patches.flatten(2).transpose(1, 2).cpu()
