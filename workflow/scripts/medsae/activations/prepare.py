"""Turn packaged weights into a folder that loads in seconds, or draw weights at random."""

import logging
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from medsae.activations.check import load_config
from medsae.weights.redraw import redraw
from medsae.weights.source import ModelSource, resolve_source
from medsae.io import UserError, atomic_folder

LARGE = 3e9
"""Parameters from which weights are kept in bfloat16 instead of float32."""

logger = logging.getLogger("medsae")


def prepare_language_model(
    source: str,
    folder: str | Path,
    *,
    random_weights: bool = False,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> None:
    """Write config, tokenizer and safetensors of ``source`` to ``folder``.

    Quantised GGUF weights are widened. With ``random_weights`` the architecture and the
    tokenizer stay and every weight is drawn anew, seeded by ``seed``, from a normal
    distribution with the mean and deviation of the trained tensor it replaces: a network's
    own initialisation would drown the token embeddings, and with them the words, in the
    output of its blocks. The folder appears whole or not at all.

    Raises ``UserError`` as ``load_config`` does, and if the tokenizer cannot be loaded.
    """
    transformers_logging.disable_progress_bar()
    config = load_config(source, trust_remote_code)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    found = resolve_source(source)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    n_parameters = model.num_parameters()
    dtype = torch.bfloat16 if n_parameters > LARGE else torch.float32
    state = _read_weights(found, dtype, trust_remote_code)
    if random_weights:
        redraw(state, seed)
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    with atomic_folder(folder) as temporary:
        _save_tokenizer(found, model, temporary, trust_remote_code)
        model.config.dtype = dtype
        model.save_pretrained(temporary)
    logger.info("%s: %.0f million parameters as %s", folder, n_parameters / 1e6, dtype)


def _read_weights(
    found: ModelSource, dtype: torch.dtype, trust_remote_code: bool
) -> dict[str, torch.Tensor]:
    # A fresh model takes these weights: one loaded from GGUF counts as quantised and
    # refuses to be saved.
    loaded = AutoModelForCausalLM.from_pretrained(
        found.name, dtype=dtype, trust_remote_code=trust_remote_code, **found.arguments
    )
    return loaded.state_dict()


def _save_tokenizer(
    found: ModelSource, model: PreTrainedModel, folder: Path, trust_remote_code: bool
) -> None:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            found.name, trust_remote_code=trust_remote_code, **found.arguments
        )
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"{found.name} has no tokenizer that transformers can load.") from error
    if found.gguf_file is not None:
        # The conversion from GGUF confuses the special tokens; their ids are right.
        for name in ("bos_token", "eos_token", "pad_token"):
            index = getattr(model.config, f"{name}_id", None)
            if index is not None:
                setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(index))
    tokenizer.save_pretrained(folder)
