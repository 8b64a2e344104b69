"""Pretrained weights: where they are, and what the same network is without them."""

from medsae.weights.redraw import redraw
from medsae.weights.source import PACKAGE, ModelSource, locate, resolve_source

__all__ = ["PACKAGE", "ModelSource", "locate", "redraw", "resolve_source"]
