"""Checkpoints of other libraries: SAELens, EleutherAI's sparsify, and the original MedSAE.

Theirs read raw activations, so a dataset normalisation x̃ = (x − μ)/s is folded into the
weights: W_enc/s, s·W_dec and b_dec = μ + s·b_pre give the same codes. Per-token normalisation is
written as SAELens's ``layer_norm``: LN(x) = √(d − 1) · (x − mean)/‖x − mean‖ but for the 1e-5 that
SAELens adds to a token's σ. It reads a normalised token smaller by 1e-5/σ of itself: nothing where
residual streams are large, 2e-5 at σ = 0.5. What SAELens wrote is read with that ε, exactly.

Batch-wise top-k is exported with its inference threshold, as a JumpReLU.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from medsae.io import UserError, atomic_path, write_json
from medsae.sae.architectures import build_sae
from medsae.sae.checkpoint import (
    CALIBRATED_NAME,
    FEATURE_HITS,
    FEATURE_SCALE,
    save_checkpoint,
)
from medsae.sae.config import CONFIG_NAME, SAEConfig, save_config
from medsae.sae.model import SparseAutoencoder

SAELENS_WEIGHTS = "sae_weights.safetensors"
SPARSIFY_WEIGHTS = "sae.safetensors"
SMALLEST_THRESHOLD = 1e-30
ORIGINAL_K = 128


def save_saelens(folder: str | Path, sae: SparseAutoencoder) -> None:
    """Write ``sae`` to ``folder`` so that ``sae_lens.SAE.load_from_disk`` reads it.

    Raises ``UserError`` for an architecture without a counterpart there.
    """
    weights = _folded(sae)
    w_enc, w_dec, b_dec = weights["W_enc"], weights["W_dec"], weights["b_pre"]
    tensors: dict[str, Tensor] = {
        "W_enc": w_enc.T,
        "W_dec": w_dec,
        "b_dec": b_dec,
        "b_enc": sae.b_enc,
    }
    config: dict[str, Any] = {"d_in": sae.d_model, "d_sae": sae.config.n_latents}
    name = sae.config.architecture
    if name == "topk":
        config |= {"architecture": "topk", "k": sae.config.k}
    elif name == "relu":
        config["architecture"] = "standard"
    elif name == "gated":
        config["architecture"] = "gated"
        magnitude = {name: sae.get_parameter(name) for name in ("r_mag", "b_mag")}
        tensors |= {"b_gate": tensors.pop("b_enc"), **magnitude}
    else:
        config["architecture"] = "jumprelu"
        tensors["threshold"] = _thresholds(sae)
    config |= {
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "layer_norm" if _by_token(sae) else "none",
        "reshape_activations": "none",
        "metadata": {},
    }
    _write(Path(folder), SAELENS_WEIGHTS, tensors, config)


def load_saelens(folder: str | Path) -> SparseAutoencoder:
    """Read a SAELens checkpoint; raises ``UserError`` for what has no counterpart here."""
    folder = Path(folder)
    tensors, config = _read(folder, SAELENS_WEIGHTS)
    kinds = {"topk": "topk", "standard": "relu", "jumprelu": "jumprelu", "gated": "gated"}
    # Before 6.0, TopK was the activation function of the standard architecture.
    architecture = config.get("architecture", "standard")
    activation = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    k = (config.get("activation_fn_kwargs") or {}).get("k", config.get("k"))
    if (architecture, activation) == ("standard", "topk"):
        architecture = "topk"
    if architecture not in kinds:
        raise UserError(f"{folder}: cannot read the architecture '{architecture}'.")
    if activation != "relu" and (architecture, activation) != ("topk", "topk"):
        raise UserError(
            f"{folder}: cannot read the architecture '{architecture}' with the activation "
            f"function '{activation}'."
        )
    if architecture == "topk" and k is None:
        raise UserError(f"{folder}: its {CONFIG_NAME} lacks the k of TopK; add it.")
    normalization = {"none": "none", None: "none", False: "none", "layer_norm": "layer_norm"}.get(
        config.get("normalize_activations")
    )
    if normalization is None or config.get("reshape_activations", "none") != "none":
        raise UserError(f"{folder}: fold its normalisation into the weights with SAELens first.")
    w_enc, w_dec, b_dec = tensors["W_enc"].T, tensors["W_dec"], tensors["b_dec"]
    b_enc = tensors["b_gate"] if "b_gate" in tensors else tensors["b_enc"]
    if not config.get("apply_b_dec_to_input", True):
        b_enc = b_enc + w_enc @ b_dec
    if config.get("rescale_acts_by_decoder_norm", False):
        norms = torch.linalg.vector_norm(w_dec, dim=1)
        w_enc, b_enc, w_dec = w_enc * norms[:, None], b_enc * norms, w_dec / norms[:, None]
    extra = {}
    if "threshold" in tensors:
        extra["log_threshold"] = tensors["threshold"].clamp_min(SMALLEST_THRESHOLD).log()
    extra |= {name: tensors[name] for name in ("r_mag", "b_mag") if name in tensors}
    if "b_mag" in extra and not config.get("apply_b_dec_to_input", True):
        extra["b_mag"] = extra["b_mag"] + extra["r_mag"].exp() * (tensors["W_enc"].T @ b_dec)
    n_latents = w_enc.shape[0]
    sae_config = SAEConfig(
        kinds[architecture],
        n_latents=n_latents,
        k=min(SAEConfig.k, n_latents) if k is None else int(k),
        normalization=normalization,  # type: ignore[arg-type]
    )
    core = {"W_enc": w_enc, "W_dec": w_dec, "b_pre": b_dec, "b_enc": b_enc}
    return _assembled(sae_config, {**core, **extra})


def save_medsae(folder: str | Path, sae: SparseAutoencoder) -> None:
    """Write ``sae`` to ``folder`` so that ``load_sae`` reads it, with its calibration if any."""
    calibration = {FEATURE_SCALE: sae.feature_scale, FEATURE_HITS: sae.feature_hits}
    known = {name: value for name, value in calibration.items() if value is not None}
    save_config(Path(folder), sae.config, None)
    save_checkpoint(Path(folder) / CALIBRATED_NAME, sae, known)


def save_sparsify(folder: str | Path, sae: SparseAutoencoder) -> None:
    """Write a TopK SAE so that ``sparsify.SparseCoder.load_from_disk`` reads it."""
    if sae.config.architecture != "topk" or _by_token(sae):
        raise UserError(
            "sparsify holds TopK autoencoders of activations that are not normalised per "
            "token; export this one for SAELens."
        )
    weights = _folded(sae)
    tensors = {
        "encoder.weight": weights["W_enc"],
        "encoder.bias": sae.b_enc,
        "W_dec": weights["W_dec"],
        "b_dec": weights["b_pre"],
    }
    config = {
        "d_in": sae.d_model,
        "num_latents": sae.config.n_latents,
        "k": sae.config.k,
        "activation": "topk",
        "normalize_decoder": True,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
    }
    _write(Path(folder), SPARSIFY_WEIGHTS, tensors, config)


def load_sparsify(folder: str | Path) -> SparseAutoencoder:
    """Read a sparsify checkpoint; raises ``UserError`` for transcoders and group-max."""
    folder = Path(folder)
    tensors, config = _read(folder, SPARSIFY_WEIGHTS)
    other = config.get("transcode") or config.get("skip_connection")
    if other or config.get("activation", "topk") != "topk" or "W_dec" not in tensors:
        raise UserError(f"{folder}: is not a TopK autoencoder; only those can be read.")
    n_latents = tensors["encoder.weight"].shape[0]
    return _assembled(
        SAEConfig("topk", n_latents, k=int(config["k"]), normalization="none"),
        {
            "W_enc": tensors["encoder.weight"],
            "b_enc": tensors["encoder.bias"],
            "W_dec": tensors["W_dec"],
            "b_pre": tensors["b_dec"],
        },
    )


def load_original(path: str | Path, k: int = ORIGINAL_K) -> SparseAutoencoder:
    """Read the state dict of the original MedSAE (``best.pt``), loaded without running code.

    It encodes x itself, not x − b_dec: the difference goes into the encoder's bias. A
    calibration in the file is kept.
    """
    path = Path(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = next((state[key] for key in ("model", "state_dict") if key in state), state)
        w_enc, w_dec = state["W_enc"].float(), state["W_dec"].float().T
        b_enc, b_dec = state["b_enc"].float(), state["b_dec"].float()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file.") from None
    except Exception as error:  # torch.load raises many kinds for what is not a state dict
        raise UserError(
            f"{path}: not a state dict of the original ({type(error).__name__})."
        ) from None
    sae = _assembled(
        SAEConfig("topk", w_enc.shape[0], k=min(k, w_enc.shape[0]), normalization="token"),
        {"W_enc": w_enc, "W_dec": w_dec, "b_pre": b_dec, "b_enc": b_enc + w_enc @ b_dec},
    )
    sae.feature_scale, sae.feature_hits = state.get("feature_scale"), state.get("feature_hits")
    return sae


def _folded(sae: SparseAutoencoder) -> dict[str, Tensor]:
    """W_enc, W_dec and b_pre of an SAE with the same codes and no normalisation of its own."""
    shift, scale = torch.zeros_like(sae.b_pre), torch.ones(())
    if sae.config.normalization == "dataset":
        shift, scale = sae.input_mean, sae.input_scale
    elif sae.config.normalization == "token":
        scale = torch.tensor(math.sqrt(sae.d_model - 1))
    scale = scale.to(sae.b_pre.device)
    return {
        "W_enc": sae.W_enc / scale,
        "W_dec": sae.W_dec * scale,
        "b_pre": shift + scale * sae.b_pre,
    }


def _by_token(sae: SparseAutoencoder) -> bool:
    return sae.config.normalization in ("token", "layer_norm")


def _thresholds(sae: SparseAutoencoder) -> Tensor:
    """Inference threshold of every latent [n_latents]."""
    state = sae.state_dict()
    if "log_threshold" in state:
        return state["log_threshold"].exp()
    if not {"threshold", "thresholds"} & set(state):
        raise UserError(f"SAELens has nothing like the architecture '{sae.config.architecture}'.")
    single = state["thresholds"][-1] if "thresholds" in state else state["threshold"]
    if float(single) < 0:
        raise UserError("this SAE has no inference threshold yet; train it first.")
    return single.expand(sae.config.n_latents)


def _assembled(config: SAEConfig, weights: Mapping[str, Tensor]) -> SparseAutoencoder:
    sae = build_sae(config, weights["W_enc"].shape[1])
    with torch.no_grad():
        for name, value in weights.items():
            sae.get_parameter(name).copy_(value)
    return sae.eval().requires_grad_(False)


def _write(
    folder: Path, name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> None:
    held = {name: t.detach().float().cpu().contiguous() for name, t in tensors.items()}
    with atomic_path(folder / name) as temporary:
        save_file(held, temporary)
    write_json(folder / CONFIG_NAME, config)


def _read(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        tensors = load_file(folder / name)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder}: not a readable checkpoint ({error}).") from None
    return {name: tensor.float() for name, tensor in tensors.items()}, config
