"""Refuse a bad model before anything expensive starts, from its configuration alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from medsae.weights.source import ModelSource, resolve_source
from medsae.io import UserError, progress

WEIGHTS = ("*.safetensors", "*.bin")


def check_inputs(models: Sequence[Mapping[str, Any]], ner_source: str) -> dict[str, Any]:
    """Check every language model and the NER model; return what is known of them.

    ``models`` are configuration entries with name, source, layers, ctx_len and
    trust_remote_code. Returns, per model name, model_type, n_layers, d_model, vocab_size.
    Only configurations are read, never weights.

    Raises ``UserError`` for the first source that cannot be found or reached, layer beyond
    the model's depth, window longer than the model's context, or model that is not a
    decoder.
    """
    facts = {}
    configs: dict[str, PreTrainedConfig] = {}
    for model in progress(models, "models checked"):
        source = model["source"]
        if source not in configs:  # reading the header of a GGUF file takes seconds
            configs[source] = load_config(source, model["trust_remote_code"])
        config = configs[source]
        _check_model(model, config)
        text = config.get_text_config(decoder=True)
        facts[model["name"]] = {
            "source": model["source"],
            "model_type": config.model_type,
            "n_layers": text.num_hidden_layers,
            "d_model": text.hidden_size,
            "vocab_size": text.vocab_size,
        }
    check_ner_source(ner_source)
    return {"models": facts, "ner": {"source": ner_source}}


def load_config(source: str, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The transformers configuration behind ``source``.

    Raises ``UserError`` if there is none or this version of transformers cannot read it.
    """
    found = resolve_source(source)
    if found.gguf_file is None and found.file("config.json") is None:
        raise UserError(f"{source} has no config.json: it is not a model that transformers loads.")
    try:
        config = AutoConfig.from_pretrained(
            found.name, trust_remote_code=trust_remote_code, **found.arguments
        )
    except (ValueError, KeyError, OSError) as error:
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{source} runs code of its own: set `trust_remote_code: true` if you trust it."
            ) from None
        raise UserError(
            f"The configuration of {source} cannot be read ({_first_line(error)}): is it a "
            "causal language model that this version of transformers knows?"
        ) from None
    if found.gguf_file is None and found.is_local:
        _check_weights(source, found)
    return config


def check_ner_source(source: str) -> None:
    """Raise ``UserError`` unless ``source`` is a GLiNER model or an encoder to start from."""
    found = resolve_source(source)
    names = ("gliner_config.json", "config.json")
    if found.gguf_file is not None or all(found.file(name) is None for name in names):
        raise UserError(
            f"ner: source: {source} has neither gliner_config.json nor config.json: it is not a "
            "model that GLiNER can use."
        )


def _check_model(model: Mapping[str, Any], config: PreTrainedConfig) -> None:
    where = f"models: {model['name']}"
    if config.is_encoder_decoder:
        raise UserError(f"{where}: {model['source']} is an encoder-decoder, not a decoder.")
    text = config.get_text_config(decoder=True)
    depth = text.num_hidden_layers
    for layer in model["layers"]:
        if layer >= depth:
            raise UserError(
                f"{where}: layer {layer} is beyond the model's depth: {model['source']} has "
                f"{depth} decoder blocks, 0 to {depth - 1}."
            )
    context = getattr(text, "max_position_embeddings", None)
    if context is not None and model["ctx_len"] + 1 > context:
        raise UserError(
            f"{where}: ctx_len {model['ctx_len']} and its BOS token exceed the {context} "
            f"positions of {model['source']}: lower ctx_len to {context - 1} or less."
        )


def _check_weights(source: str, found: ModelSource) -> None:
    folder = Path(found.name)
    if not any(any(folder.glob(pattern)) for pattern in WEIGHTS):
        raise UserError(f"{source} holds no weights (*.safetensors): download the model again.")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
