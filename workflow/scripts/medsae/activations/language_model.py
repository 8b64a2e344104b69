"""A language model up to one decoder block: no block above it, no LM head.

The hidden state of layer ℓ is the output of decoder block ℓ (0-based): entry ℓ + 1 of
transformers' ``output_hidden_states``, except that for the last block transformers reports
it after the final norm, and here it is before.
"""

import copy
import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from medsae.activations.check import load_config
from medsae.weights.source import resolve_source
from medsae.device import fast_float32_products
from medsae.io import UserError


def decoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The text decoder inside ``model``: wrappers for language modelling or images taken off."""
    decoder = model.get_decoder()
    return model if decoder is None else decoder


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder blocks of ``model``, in order.

    They are the one module list of the decoder that is as long as the model is deep, under
    whatever name its family gives it (``layers``, ``h``). Raises ``UserError`` if there is
    no such list.
    """
    decoder = decoder_of(model)
    depth = decoder.config.get_text_config(decoder=True).num_hidden_layers
    for module in decoder.children():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise UserError(
        f"{type(model).__name__} has no list of {depth} decoder blocks: this kind of model "
        "is not supported."
    )


def sink_token_id(tokenizer: Any, config: Any) -> int:
    """The token that is put before every window: BOS, or what separated documents in training.

    Decoders park excess attention on the first token they read, whose hidden state becomes
    useless (norms a hundred times the others'). A token that is not stored takes that part.
    Models without BOS (GPT-NeoX, Qwen2) were trained with an end-of-text token there.

    Raises ``UserError`` if the model defines neither.
    """
    text = config.get_text_config(decoder=True)
    for index in (
        tokenizer.bos_token_id,
        getattr(text, "bos_token_id", None),
        tokenizer.eos_token_id,
    ):
        if isinstance(index, int) and 0 <= index < text.vocab_size:
            return index
    raise UserError(
        "The model has neither a BOS nor an EOS token to take the attention sink at the start of "
        "a window: set bos_token in its tokenizer_config.json."
    )


@dataclass(frozen=True)
class BlockReader:
    """Runs a truncated decoder and catches the output of its last block."""

    decoder: PreTrainedModel
    device: torch.device

    @property
    def d_model(self) -> int:
        """Width of the hidden states."""
        return self.decoder.config.get_text_config(decoder=True).hidden_size

    @torch.inference_mode()
    def __call__(self, token_ids: Tensor) -> Tensor:
        """Hidden states [batch, length, d_model] of ``token_ids`` int64 [batch, length].

        Shorter sequences are padded on the right, with any token: attention is causal, so
        no token sees what comes after it, and no mask is needed.
        """
        caught: list[Tensor] = []

        def catch(module: nn.Module, inputs: Any, output: Any) -> None:
            caught.append(output[0] if isinstance(output, tuple) else output)

        handle = decoder_blocks(self.decoder)[-1].register_forward_hook(catch)
        try:
            with fast_float32_products():
                self.decoder(input_ids=token_ids.to(self.device), use_cache=False)
        finally:
            handle.remove()
        return caught[0]


def load_block_reader(
    source: str,
    layer: int,
    *,
    dtype: str = "float32",
    quantization: str = "none",
    attention: str = "sdpa",
    trust_remote_code: bool = False,
) -> BlockReader:
    """Load the decoder of ``source`` up to and including block ``layer``.

    Weights above are never read. One GPU is used if there is one, and accelerate spreads
    the blocks over several. ``quantization`` "8bit" or "4bit" keeps the weights in so many bits.
    Raises ``UserError`` for a layer beyond the model's depth, and for quantisation without
    bitsandbytes.
    """
    config = load_config(source, trust_remote_code)
    text = config.get_text_config(decoder=True)
    if layer >= text.num_hidden_layers:
        raise UserError(f"{source} has {text.num_hidden_layers} decoder blocks, not {layer + 1}.")
    config = truncated_config(config, layer + 1)
    model = _from_pretrained(
        AutoModel, source, config, dtype, quantization, attention, trust_remote_code
    )
    decoder = decoder_of(model)
    device = next(decoder.get_input_embeddings().parameters()).device
    return BlockReader(decoder, device)


def load_causal_lm(
    source: str,
    *,
    dtype: str = "float32",
    quantization: str = "none",
    attention: str = "sdpa",
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load the whole model of ``source`` with its LM head, placed as ``load_block_reader`` does."""
    config = load_config(source, trust_remote_code)
    return _from_pretrained(
        AutoModelForCausalLM, source, config, dtype, quantization, attention, trust_remote_code
    )


def truncated_config(config: Any, n_layers: int) -> Any:
    """A copy of ``config`` for the first ``n_layers`` blocks, per-layer lists included."""
    config = copy.deepcopy(config)
    text = config.get_text_config(decoder=True)
    depth = text.num_hidden_layers
    for name, value in vars(text).items():
        if isinstance(value, list) and len(value) == depth and "layer" in name:
            setattr(text, name, value[:n_layers])
    text.num_hidden_layers = n_layers
    return config


def quantized(source: str, quantization: str, dtype: torch.dtype) -> dict[str, Any]:
    """What ``from_pretrained`` is told to load weights in fewer bits; nothing for "none".

    Raises ``UserError`` without bitsandbytes.
    """
    if quantization == "none":
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"{source}: quantization {quantization} needs the package bitsandbytes: pip install "
            "-r requirements-quantization.txt, or remove `quantization`."
        )
    if quantization == "8bit":
        bits = BitsAndBytesConfig(load_in_8bit=True)
    else:
        bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": bits}


def _from_pretrained(
    auto: Any,
    source: str,
    config: Any,
    dtype: str,
    quantization: str,
    attention: str,
    trust_remote_code: bool,
) -> PreTrainedModel:
    found = resolve_source(source)
    weights = quantized(source, quantization, getattr(torch, dtype))
    n_gpus = torch.cuda.device_count()
    placement: dict[str, Any] = {}
    if n_gpus:
        placement = {"device_map": "auto" if n_gpus > 1 else {"": 0}}
    elif weights:  # bitsandbytes looks for a GPU unless it is told
        placement = {"device_map": {"": "cpu"}}
    transformers_logging.disable_progress_bar()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it would list every weight left unread
    try:
        model = auto.from_pretrained(
            found.name,
            config=config,
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            trust_remote_code=trust_remote_code,
            **weights,
            **placement,
            **found.arguments,
        )
    except (ImportError, OSError) as error:
        raise UserError(
            f"{source} cannot be loaded: {str(error).strip().splitlines()[0]}"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    return model.eval()
