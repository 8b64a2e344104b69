"""Turn packaged weights into a folder that loads fast, or draw weights at random."""

import json
import logging
import pickle
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from medsae.imaging.encoders.base import IMAGENET_MEAN, IMAGENET_STD
from medsae.imaging.encoders.biomedparse import biomedparse_encoder, preprocessor
from medsae.imaging.encoders.lite_medsam import WEIGHTS
from medsae.imaging.encoders.tiny_vit import TinyViT, encoder_weights
from medsae.io import UserError, atomic_folder
from medsae.weights import locate, redraw, resolve_source

ONNX, LITE_MEDSAM, BIOMEDPARSE = ".onnx", ".pth", ".pt"
PREPROCESSOR = "preprocessor_config.json"

logger = logging.getLogger("medsae")


def is_packaged(source: str) -> bool:
    """Whether ``source`` is a single file of weights, which must be converted before use."""
    return source.endswith((ONNX, LITE_MEDSAM, BIOMEDPARSE))


def prepare_encoder(source: str, folder: str | Path, random_weights: bool, seed: int) -> None:
    """Write the encoder ``source`` to ``folder`` as safetensors.

    ``source`` is an ONNX file with a DINOv2 backbone, the checkpoint of LiteMedSAM (.pth) or
    BiomedParse (.pt), or a vision model of transformers. With ``random_weights`` every weight
    is drawn anew on the scale of the trained one. Raises ``UserError`` naming the source if it
    cannot be read.
    """
    with atomic_folder(folder) as temporary:
        if source.endswith(LITE_MEDSAM):
            network: nn.Module = _lite_medsam(source)
            save_file(_state(network, random_weights, seed), temporary / WEIGHTS)
        else:
            model = _vision_model(source, temporary)
            model.load_state_dict(_state(model, random_weights, seed))
            model.save_pretrained(temporary)
            network = model
    n_parameters = sum(part.numel() for part in network.parameters())
    logger.info("%s: %.1f million parameters", folder, n_parameters / 1e6)


def _state(network: nn.Module, random_weights: bool, seed: int) -> dict[str, Tensor]:
    state = {
        name: part.detach().clone().contiguous() for name, part in network.state_dict().items()
    }
    if random_weights:
        # Running statistics describe data, and a variance must stay positive.
        redraw({name: part for name, part in state.items() if "running_" not in name}, seed)
    return state


def _vision_model(source: str, folder: Path) -> PreTrainedModel:
    if source.endswith(ONNX):
        # onnx is needed nowhere else, and is slow to import
        from medsae.imaging.encoders.dinov2_onnx import read_dinov2

        note = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD, "size": {"height": 224}}
        (folder / PREPROCESSOR).write_text(json.dumps(note))
        return read_dinov2(_file(source))
    if source.endswith(BIOMEDPARSE):
        (folder / PREPROCESSOR).write_text(json.dumps(preprocessor()))
        try:
            return biomedparse_encoder(_checkpoint(source))
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
    found = resolve_source(source)
    path = found.file(PREPROCESSOR)
    if path is not None:
        (folder / PREPROCESSOR).write_bytes(path.read_bytes())
    model = AutoModel.from_pretrained(found.name, dtype=torch.float32, **found.arguments)
    return getattr(model, "vision_model", model)


def _lite_medsam(source: str) -> TinyViT:
    network = TinyViT()
    try:
        network.load_state_dict(encoder_weights(_checkpoint(source)))
    except RuntimeError:
        raise UserError(f"{source}: is no checkpoint of LiteMedSAM.") from None
    return network


def _checkpoint(source: str) -> dict[str, Tensor]:
    try:
        state = torch.load(_file(source), map_location="cpu", weights_only=True)
        state = state.get("model", state)
        return {name: part for name, part in state.items() if isinstance(part, Tensor)}
    except (RuntimeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{source}: is no checkpoint of plain tensors ({type(error).__name__})."
        ) from None


def _file(source: str) -> Path:
    path = locate(source)
    if path is None or not path.is_file():
        raise UserError(f"{source}: there is no such file; correct `source`.")
    return path
