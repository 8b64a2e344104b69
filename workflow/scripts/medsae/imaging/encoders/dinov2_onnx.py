"""DINOv2 weights out of an ONNX graph, as a model of transformers.

An exporter names biases and norms after the module they belong to, but folds the transpose
of each weight matrix into an anonymous constant. Every product is followed by the addition
of its bias, which tells whose matrix it is.
"""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from medsae.io import UserError

PREFIX = "backbone."
CLASS_TOKEN = "embeddings.cls_token"


def read_dinov2(path: str | Path) -> Dinov2Model:
    """The DINOv2 backbone of the ONNX file ``path``; raises ``UserError`` if it has none."""
    graph = onnx.load(str(path)).graph
    named = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    state = {
        name.removeprefix(PREFIX): torch.from_numpy(value.copy())
        for name, value in named.items()
        if name.startswith(PREFIX)
    }
    if CLASS_TOKEN not in state:
        raise UserError(f"{path}: holds no DINOv2 backbone.")
    state |= _matrices(graph, named)
    state |= _positions(named)
    model = Dinov2Model(_config(state))
    state["embeddings.mask_token"] = torch.zeros(1, model.config.hidden_size)  # of training only
    try:
        model.load_state_dict(state)
    except RuntimeError:
        raise UserError(f"{path}: its weights are not those of a DINOv2 backbone.") from None
    return model


def _matrices(graph: onnx.GraphProto, named: dict[str, np.ndarray]) -> dict[str, Tensor]:
    product = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    found = {}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        bias = next((name for name in node.input if name.startswith(PREFIX)), "")
        before = next((product[name] for name in node.input if name in product), None)
        if not bias.endswith(".bias") or before is None:
            continue
        matrix = next((name for name in before.input if name in named), None)
        if matrix is not None:
            name = bias.removeprefix(PREFIX).removesuffix("bias") + "weight"
            found[name] = torch.from_numpy(named[matrix].T.copy())
    return found


def _positions(named: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Position embeddings: an exporter splits them into class token and patches."""
    width = named[PREFIX + CLASS_TOKEN].shape[-1]
    others = [
        value
        for name, value in named.items()
        if not name.startswith(PREFIX) and value.ndim == 3 and value.shape[::2] == (1, width)
    ]
    parts = sorted(others, key=lambda value: value.shape[1])
    joined = np.concatenate(parts, axis=1)
    return {"embeddings.position_embeddings": torch.from_numpy(joined)}


def _config(state: dict[str, Tensor]) -> Dinov2Config:
    width = state[CLASS_TOKEN].shape[-1]
    patch = state["embeddings.patch_embeddings.projection.weight"].shape[-1]
    depth = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.layer"))
    side = round((state["embeddings.position_embeddings"].shape[1] - 1) ** 0.5) * patch
    return Dinov2Config(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=width // 64,
        patch_size=patch,
        image_size=side,
    )
