"""Truncated decoders of every family give the hidden states of the whole model, to the bit."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from medsae.activations.language_model import (
    decoder_blocks,
    load_block_reader,
    load_causal_lm,
    quantized,
    sink_token_id,
)
from medsae.activations.tokenize import load_tokenizer
from medsae.io import UserError

SIZE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = SIZE | {"num_key_value_heads": 2, "head_dim": 8}
GEMMA_TEXT = GROUPED | {"sliding_window": 4, "sliding_window_pattern": 2}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

FAMILIES = {
    "llama": lambda: LlamaConfig(**GROUPED),
    "llama-tied": lambda: LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "mistral": lambda: MistralConfig(**GROUPED, sliding_window=4),
    "qwen2": lambda: Qwen2Config(**GROUPED),
    "qwen2-sliding": lambda: Qwen2Config(
        **GROUPED, use_sliding_window=True, sliding_window=4, max_window_layers=2
    ),
    "qwen3": lambda: Qwen3Config(**GROUPED),
    "gpt2": lambda: GPT2Config(
        vocab_size=97, n_embd=32, n_layer=4, n_head=4, n_positions=64, bos_token_id=1
    ),
    "gpt-neox": lambda: GPTNeoXConfig(**SIZE),
    "gemma3-text": lambda: Gemma3TextConfig(**GEMMA_TEXT),
    "gemma3-multimodal": lambda: Gemma3Config(
        text_config=GEMMA_TEXT, vision_config=VISION, mm_tokens_per_image=4
    ),
}


def build(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = FAMILIES[family]()
    if isinstance(config, Gemma3Config):
        return Gemma3ForConditionalGeneration(config).eval()
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module", params=FAMILIES)
def saved(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PreTrainedModel, str]:
    model = build(request.param)
    folder = tmp_path_factory.mktemp("family") / request.param
    model.save_pretrained(folder)
    return model, str(folder)


def token_ids(n_rows: int = 2, length: int = 13) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, 97, (n_rows, length), generator=generator)


def block_output(model: PreTrainedModel, layer: int, ids: torch.Tensor) -> torch.Tensor:
    """Output of a block of the whole model, before anything that follows it."""
    caught = []
    handle = decoder_blocks(model)[layer].register_forward_hook(
        lambda module, inputs, output: caught.append(
            output[0] if isinstance(output, tuple) else output
        )
    )
    with torch.inference_mode():
        model(input_ids=ids)
    handle.remove()
    return caught[0]


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_the_truncated_decoder_equals_the_whole_model(
    saved: tuple[PreTrainedModel, str], layer: int
):
    model, folder = saved
    ids = token_ids()
    reader = load_block_reader(folder, layer)
    found = reader(ids)
    assert len(decoder_blocks(reader.decoder)) == layer + 1
    assert reader.d_model == found.shape[-1] == 32
    assert torch.equal(found, block_output(model, layer, ids))
    if layer < 3:  # transformers reports the last one after the final norm
        with torch.inference_mode():
            states = model(input_ids=ids, output_hidden_states=True).hidden_states
        assert torch.equal(found, states[layer + 1])


def test_no_lm_head_or_vision_tower_is_run(saved: tuple[PreTrainedModel, str]):
    reader = load_block_reader(saved[1], 1)
    names = [name for name, _ in reader.decoder.named_modules()]
    assert not any("lm_head" in name or "vision" in name for name in names)


def test_tokens_do_not_see_padding_on_their_right(saved: tuple[PreTrainedModel, str]):
    ids = token_ids(1, 9)
    reader = load_block_reader(saved[1], 2)
    padded = torch.cat([ids, torch.full((1, 8), 1)], dim=1)
    padded = torch.cat([padded, token_ids(1, 17)])
    torch.testing.assert_close(reader(padded)[:1, :9], reader(ids), rtol=1e-5, atol=1e-5)


def test_the_whole_model_loads_with_its_head(saved: tuple[PreTrainedModel, str]):
    model, folder = saved
    loaded = load_causal_lm(folder)
    ids = token_ids()
    with torch.inference_mode():
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_layer_beyond_the_depth_is_refused(saved: tuple[PreTrainedModel, str]):
    with pytest.raises(UserError, match="4 decoder blocks"):
        load_block_reader(saved[1], 4)


def test_the_attention_sink_falls_on_the_token_that_is_not_stored(smollm: str):
    tokenizer = load_tokenizer(smollm)
    reader = load_block_reader(smollm, 14)
    bos = sink_token_id(tokenizer, reader.decoder.config)
    assert bos == tokenizer.bos_token_id == 1
    text = "The patient was admitted with acute renal failure and treated with fluids. " * 3
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    with_bos = torch.cat([torch.tensor([[bos]]), ids], dim=1)
    norms = reader(with_bos)[0].norm(dim=1)
    assert norms[0] > 50 * norms[1:].median()
    assert norms[1:].max() < 5 * norms[1:].median()
    without = reader(ids)[0].norm(dim=1)
    assert without[0] > 50 * without[1:].median()  # what would have been stored otherwise


class Tokens:
    def __init__(self, bos: int | None, eos: int | None) -> None:
        self.bos_token_id, self.eos_token_id = bos, eos


def test_models_without_bos_start_windows_with_what_separated_documents(tmp_path: Path):
    assert sink_token_id(Tokens(5, 2), LlamaConfig(**GROUPED)) == 5
    assert sink_token_id(Tokens(None, 2), Qwen2Config(**GROUPED)) == 1
    assert sink_token_id(Tokens(None, 2), LlamaConfig(**GROUPED | {"bos_token_id": None})) == 2
    with pytest.raises(UserError, match="neither a BOS nor an EOS"):
        sink_token_id(Tokens(None, None), LlamaConfig(**GROUPED | {"bos_token_id": None}))


@pytest.mark.parametrize(
    ("bits", "layer_type", "share", "error"),
    [("8bit", "Linear8bitLt", 0.35, 0.05), ("4bit", "Linear4bit", 0.25, 0.5)],
)
def test_a_quantised_decoder_gives_nearly_the_same_states_in_less_memory(
    tmp_path: Path, bits: str, layer_type: str, share: float, error: float
):
    pytest.importorskip("bitsandbytes", reason="requirements-quantization.txt is optional")
    torch.manual_seed(0)
    config = LlamaConfig(**GROUPED | {"hidden_size": 128, "intermediate_size": 512})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    whole = load_block_reader(str(tmp_path), 2)
    reader = load_block_reader(str(tmp_path), 2, quantization=bits)
    blocks, whole_blocks = decoder_blocks(reader.decoder), decoder_blocks(whole.decoder)
    assert len(blocks) == 3
    assert type(blocks[0].mlp.up_proj).__name__ == layer_type
    size, whole_size = (
        sum(p.numel() * p.element_size() for p in each.parameters())
        for each in (blocks, whole_blocks)
    )
    assert size < share * whole_size
    expected = whole(token_ids())
    found = reader(token_ids()).to(expected)
    assert 0 < (found - expected).norm() < error * expected.norm()


def test_quantisation_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="requirements-quantization"):
        quantized("some/model", "8bit", torch.bfloat16)


def test_quantisation_is_asked_of_transformers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert quantized("some/model", "none", torch.bfloat16) == {}
    eight = quantized("some/model", "8bit", torch.bfloat16)["quantization_config"]
    four = quantized("some/model", "4bit", torch.bfloat16)["quantization_config"]
    assert (eight.load_in_8bit, eight.load_in_4bit) == (True, False)
    assert four.load_in_4bit and four.bnb_4bit_compute_dtype == torch.bfloat16


def test_the_blocks_go_where_the_job_has_gpus(
    saved: tuple[PreTrainedModel, str], monkeypatch: pytest.MonkeyPatch
):
    from transformers import AutoModel

    asked = []
    load = AutoModel.from_pretrained

    def record(name: str, **arguments):
        asked.append(arguments.pop("device_map", None))
        return load(name, **arguments)

    monkeypatch.setattr(AutoModel, "from_pretrained", record)
    for n_gpus in (0, 1, 4):
        monkeypatch.setattr("torch.cuda.device_count", lambda n=n_gpus: n)
        load_block_reader(saved[1], 1)
    assert asked == [None, {"": 0}, "auto"]
