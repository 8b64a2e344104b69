"""Image encoders: pixels in, embeddings out, behind one interface."""

from pathlib import Path

import torch

from medsae.imaging.encoders.base import Encoder

PIXELS = "pixels"


def load_encoder(
    source: str,
    *,
    layer: int | None,
    pooling: str,
    size: int | None,
    dtype: str,
    device: torch.device,
) -> Encoder:
    """The encoder behind ``source``: ``pixels``, a prepared folder, or a transformers model."""
    if source == PIXELS:
        from medsae.imaging.encoders.pixels import RawPixels

        return RawPixels()
    from medsae.imaging.encoders import lite_medsam, vision_transformer

    if (Path(source) / lite_medsam.WEIGHTS).exists():
        return lite_medsam.LiteMedSam(Path(source), size, device)
    return vision_transformer.VisionModel(
        source, layer=layer, pooling=pooling, size=size, dtype=dtype, device=device
    )


__all__ = ["PIXELS", "Encoder", "load_encoder"]
