"""Any vision model of transformers: DINOv3, DINOv2, ViT, ConvNeXt, …, by hub id or folder."""

import inspect
import json
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from medsae.imaging.encoders.base import IMAGENET_MEAN, IMAGENET_STD, Preparation
from medsae.io import UserError
from medsae.weights import resolve_source

SIZE = 224


class VisionModel:
    """Embeddings of one block, or of the whole model.

    ``layer``    block whose output is taken, 0 is the first; None is the model's own output
    ``pooling``  ``pooler``: the model's pooled output (only without ``layer``); ``mean``: of
                 the patch tokens; ``cls``: the first token
    ``size``     side of the images, in pixels; None takes the model's own
    """

    def __init__(
        self,
        source: str,
        *,
        layer: int | None,
        pooling: str,
        size: int | None,
        dtype: str,
        device: torch.device,
    ) -> None:
        self._pooling, self._layer, self._device = pooling, layer, device
        self._dtype = getattr(torch, dtype)
        self._model = _load(source, self._dtype).eval().to(device)
        self._prepare = _preparation(source, size)
        self._seen: Tensor | None = None
        if layer is not None:
            block = _cut_after(self._model, layer, source)
            block.register_forward_hook(self._remember)
        arguments = inspect.signature(self._model.forward).parameters
        self._arguments: dict[str, Any] = {}
        if "interpolate_pos_encoding" in arguments:
            self._arguments["interpolate_pos_encoding"] = True
        side = self._prepare.size
        tried, patches = self(torch.zeros(1, side, side, dtype=torch.uint8))
        self.width, self.n_patches = tried.shape[1], patches.shape[1]

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        images = self._prepare(pixels, self._device, self._dtype)
        output = self._model(images, **self._arguments)
        states = self._seen if self._layer is not None else output.last_hidden_state
        assert states is not None
        if states.ndim == 4:  # a convolutional network: [n, d, rows, columns]
            first, patches = states.mean((2, 3)), states.flatten(2).transpose(1, 2)
        else:
            first, patches = states[:, 0], states[:, self._prefix(states) :]
        pooled = {"mean": patches.mean(1), "cls": first}.get(self._pooling)
        if pooled is None:
            pooled = output.pooler_output.flatten(1)
        return pooled.float().cpu(), patches.float().cpu()

    def _remember(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._seen = output[0] if isinstance(output, tuple) else output

    def _prefix(self, states: Tensor) -> int:
        """Class and register tokens before the patches."""
        patch = getattr(self._model.config, "patch_size", None)
        if patch is None:
            return 0
        grid = self._prepare.size // (patch if isinstance(patch, int) else patch[0])
        return max(0, states.shape[1] - grid * grid)


def check_vision_model(source: str, layer: int | None, pooling: str) -> None:
    """Raise ``UserError`` if ``source`` is no vision model or has no such layer."""
    config = _config(source)
    depth = getattr(config, "num_hidden_layers", None)
    if layer is not None and depth is not None and layer >= depth:
        raise UserError(f"{source} has {depth} blocks, 0 to {depth - 1}: lower `layer` {layer}.")
    if not hasattr(config, "image_size") and not hasattr(config, "num_channels"):
        raise UserError(f"{source} is no vision model ({config.model_type}).")
    if layer is not None and pooling == "pooler":
        raise UserError(f"{source}: only the whole model has a pooled output: use `pooling: mean`.")


def _config(source: str) -> Any:
    found = resolve_source(source)
    if found.file("config.json") is None:
        raise UserError(f"{source} has no config.json: it is not a model that transformers loads.")
    try:
        config = AutoConfig.from_pretrained(found.name, **found.arguments)
    except (ValueError, KeyError, OSError) as error:
        raise UserError(
            f"The configuration of {source} cannot be read ({type(error).__name__}): is it a "
            "vision model that this version of transformers knows?"
        ) from None
    # Of an image-text model only the image part is read.
    return getattr(config, "vision_config", config)


def _load(source: str, dtype: torch.dtype) -> PreTrainedModel:
    found = resolve_source(source)
    model = AutoModel.from_pretrained(found.name, dtype=dtype, **found.arguments)
    return getattr(model, "vision_model", model)


def _preparation(source: str, size: int | None) -> Preparation:
    found = resolve_source(source)
    path = found.file("preprocessor_config.json")
    stated = json.loads(path.read_text(encoding="utf-8")) if path else {}
    own = stated.get("crop_size") or stated.get("size") or {}
    side = own if isinstance(own, int) else own.get("height") or own.get("shortest_edge")
    mean = tuple(stated.get("image_mean") or IMAGENET_MEAN)
    std = tuple(stated.get("image_std") or IMAGENET_STD)
    return Preparation(size or side or SIZE, mean, std)


def _cut_after(model: PreTrainedModel, layer: int, source: str) -> nn.Module:
    """Drop the blocks behind ``layer``, which nothing needs; return that block."""
    depth = getattr(model.config, "num_hidden_layers", None)
    for module in model.modules():
        for name, blocks in module.named_children():
            if isinstance(blocks, nn.ModuleList) and len(blocks) == depth:
                if layer >= len(blocks):
                    raise UserError(f"{source} has only {depth} blocks: lower `layer` {layer}.")
                setattr(module, name, nn.ModuleList(blocks[: layer + 1]))
                return blocks[layer]
    raise UserError(f"{source}: its blocks are not found; leave `layer` out.")
