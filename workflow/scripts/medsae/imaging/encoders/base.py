"""What every image encoder offers, whatever stands behind it."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Encoder(Protocol):
    """Images in, one embedding per image and one per patch out."""

    @property
    def width(self) -> int:
        """d, of embeddings and patch tokens."""

    @property
    def n_patches(self) -> int:
        """Patch tokens of one image; 0 where there are none."""

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings float32 [n, d] and patch tokens [n, n_patches, d] of grey ``pixels``
        uint8 [n, side, side]."""


@dataclass(frozen=True)
class Preparation:
    """How grey pixels become the input of a network: resized, scaled, three channels."""

    size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __call__(self, pixels: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
        """[n, 3, size, size] of uint8 [n, side, side]."""
        images = pixels.to(device)[:, None].float() / 255
        if images.shape[-1] != self.size:
            images = functional.interpolate(
                images, (self.size, self.size), mode="bicubic", antialias=True
            ).clamp(0, 1)
        mean, std = (
            torch.tensor(part, device=device)[:, None, None] for part in (self.mean, self.std)
        )
        return ((images - mean) / std).to(dtype)
