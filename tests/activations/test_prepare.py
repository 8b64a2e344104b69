"""Packaged weights become a folder that holds the same model."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from medsae.activations.language_model import load_causal_lm
from medsae.activations.prepare import prepare_language_model
from medsae.activations.tokenize import load_tokenizer
from medsae.io import UserError
from medsae.weights.source import resolve_source
from tests.activations.conftest import MINILM, SMOLLM


def test_the_converted_model_computes_what_the_package_holds(smollm: str):
    found = resolve_source(SMOLLM)
    original = AutoModelForCausalLM.from_pretrained(
        found.name, dtype=torch.float32, **found.arguments
    ).eval()
    converted = load_causal_lm(smollm)
    assert not hasattr(converted.config, "quantization_config")
    ids = load_tokenizer(smollm)("Acute renal failure", return_tensors="pt").input_ids
    with torch.inference_mode():
        assert torch.equal(converted(ids).logits, original(ids).logits)
    assert converted.lm_head.weight is converted.get_input_embeddings().weight


def test_special_tokens_survive_the_conversion(smollm: str):
    tokenizer = load_tokenizer(smollm)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A tiny Llama with the tokenizer of the encoder."""
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=30522,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    folder = tmp_path / "tiny"
    LlamaForCausalLM(config).save_pretrained(folder)
    load_tokenizer(MINILM).save_pretrained(folder)
    return str(folder)


def test_random_weights_keep_the_architecture_and_follow_the_seed(tiny: str, tmp_path: Path):
    weights = {}
    for name, seed in {"one": 1, "again": 1, "two": 2}.items():
        prepare_language_model(tiny, tmp_path / name, random_weights=True, seed=seed)
        weights[name] = (tmp_path / name / "model.safetensors").read_bytes()
    assert weights["one"] == weights["again"] != weights["two"]
    original = (Path(tiny) / "model.safetensors").read_bytes()
    assert original not in weights.values()
    model = load_causal_lm(str(tmp_path / "one"))
    assert model.config.hidden_size == 16
    assert 0.015 < model.model.layers[0].mlp.up_proj.weight.std() < 0.025
    assert load_tokenizer(str(tmp_path / "one")).is_fast


def test_drawing_weights_leaves_the_global_seed_alone(tiny: str, tmp_path: Path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    prepare_language_model(tiny, tmp_path / "r", random_weights=True, seed=1)
    assert torch.equal(torch.rand(1), expected)


def test_a_failed_conversion_leaves_nothing_behind(tiny: str, tmp_path: Path):
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (Path(tiny) / name).unlink(missing_ok=True)
    target = tmp_path / "out" / "model"
    with pytest.raises(UserError, match="tokenizer"):
        prepare_language_model(tiny, target, random_weights=True)
    assert list(target.parent.iterdir()) == []
