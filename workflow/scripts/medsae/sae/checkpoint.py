"""Files of a run: models that stand alone, and checkpoints from which training goes on."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medsae.io import UserError
from medsae.sae import parallel, sharding
from medsae.sae.architectures import build_sae
from medsae.sae.config import SAEConfig
from medsae.sae.model import SparseAutoencoder
from medsae.sae.tensors import load_tensors, save_tensors

BEST_NAME = "best.safetensors"
LATEST_NAME = "latest.safetensors"
CALIBRATED_NAME = "sae.safetensors"
STATE_GLOB = "step_*.safetensors"

FEATURE_SCALE = "feature_scale"
FEATURE_HITS = "feature_hits"


def save_checkpoint(
    path: str | Path, model: SparseAutoencoder, extra: dict[str, Tensor] | None = None
) -> None:
    """Write ``model`` as one file that ``load_sae`` can apply to raw activations.

    It holds the weights, the normalisation, inference thresholds and the configuration;
    ``extra`` tensors (the calibration) go beside them. Of several processes all call this
    and the first writes.
    """
    tensors = {**whole(model, model.state_dict()), **(extra or {})}
    if parallel.rank() == 0:
        save_tensors(Path(path), tensors, {"config": model.config.to_dict()})


def whole(model: SparseAutoencoder, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """State of all latents, on the first process, from the state of those held here."""
    names = [name for name, _ in model.named_parameters()]
    return {
        name: sharding.on_first(tensor) if sharding.is_of_latents(name, tensor, names) else tensor
        for name, tensor in tensors.items()
    }


def load_sae(path: str | Path, device: str | torch.device = "cpu") -> SparseAutoencoder:
    """Load an SAE from a file, or from a folder: its calibrated SAE, else its best.

    Raises ``UserError`` naming the file if it is missing, damaged or of an unknown kind.
    """
    path = Path(path)
    if path.is_dir():
        calibrated = path / CALIBRATED_NAME
        path = calibrated if calibrated.exists() else path / BEST_NAME
    tensors, note = load_tensors(path)
    try:
        config = SAEConfig.from_dict(note["config"])
        model = build_sae(config, d_model=tensors["W_enc"].shape[1])
        scale, hits = tensors.pop(FEATURE_SCALE, None), tensors.pop(FEATURE_HITS, None)
        model.load_state_dict(tensors)
    except (KeyError, RuntimeError, TypeError) as error:
        raise UserError(f"{path}: not an SAE this version can read ({error}).") from None
    model.feature_scale, model.feature_hits = scale, hits
    return model.to(device).eval().requires_grad_(False)


def state_path(folder: Path, step: int) -> Path:
    return folder / f"step_{step:010d}.safetensors"


def latest_state(
    folder: Path, model: SparseAutoencoder
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest training state in ``folder``, or None; raises ``UserError`` if damaged.

    Of the tensors with a row for every latent, the rows that ``model`` holds here.
    """
    paths = sorted(folder.glob(STATE_GLOB))
    names = [name for name, _ in model.named_parameters()]

    def held(name: str, tensor: Tensor) -> Tensor:
        mine = parallel.shards_latents() and sharding.is_of_latents(name, tensor, names)
        part = sharding.own(tensor).clone() if mine else tensor
        return part.to(model.W_enc.device)  # at once: many processes may share the host's memory

    return load_tensors(paths[-1], held) if paths else None


def save_state(
    folder: Path, step: int, tensors: dict[str, Tensor], note: dict[str, Any], keep_last: int
) -> None:
    """Write a training state, then remove all but the ``keep_last`` newest."""
    save_tensors(state_path(folder, step), tensors, note)
    remove_old_states(folder, keep_last)


def remove_old_states(folder: Path, keep_last: int) -> None:
    """Remove all training states but the ``keep_last`` newest."""
    for stale in sorted(folder.glob(STATE_GLOB))[:-keep_last]:
        stale.unlink()


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], str]:
    """State of an optimizer as named tensors and a JSON text of what is not a tensor."""
    tensors: dict[str, Tensor] = {}
    rest: dict[str, Any] = {}
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{number}.{key}"] = value
            else:
                rest[f"{number}.{key}"] = value
    return tensors, json.dumps(rest)


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], rest: str
) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **json.loads(rest)}.items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def remove_stale_temporaries(folder: Path) -> None:
    """Remove half-written files that a killed run left behind."""
    for stale in folder.glob(".*.tmp.*"):
        if f".{os.getpid()}." not in stale.name:
            stale.unlink(missing_ok=True)
