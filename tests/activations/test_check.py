"""A wrong model stops the study before any weights are read."""

import json
from pathlib import Path

import pytest

from medsae.activations.check import check_inputs, check_ner_source
from medsae.io import UserError
from tests.activations.conftest import MINILM, SMOLLM


def entry(**changes: object) -> dict:
    model = {
        "name": "small",
        "source": SMOLLM,
        "layers": [14],
        "ctx_len": 512,
        "trust_remote_code": False,
    }
    return model | changes


def folder(path: Path, weights: bool = True, **config: object) -> str:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if weights:
        (path / "model.safetensors").write_bytes(b"")
    return str(path)


LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 32,
    "vocab_size": 100,
    "max_position_embeddings": 128,
}


def test_what_is_known_of_a_model_is_reported():
    checked = check_inputs([entry()], MINILM)
    assert checked["models"]["small"] == {
        "source": SMOLLM,
        "model_type": "llama",
        "n_layers": 30,
        "d_model": 576,
        "vocab_size": 49152,
    }


def test_a_layer_beyond_the_depth_is_refused_with_the_depth():
    with pytest.raises(UserError, match=r"layer 30 is beyond .* 30 decoder blocks, 0 to 29"):
        check_inputs([entry(layers=[29, 30])], MINILM)


def test_a_window_longer_than_the_context_is_refused(tmp_path: Path):
    source = folder(tmp_path / "m", **LLAMA)
    assert check_inputs([entry(source=source, layers=[3], ctx_len=127)], MINILM)
    with pytest.raises(UserError, match="lower ctx_len to 127"):
        check_inputs([entry(source=source, layers=[3], ctx_len=128)], MINILM)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"model_type": "no-such-family"}, "cannot be read"),
        ({"model_type": "t5"}, "encoder-decoder"),
    ],
)
def test_a_model_that_is_no_decoder_is_refused(tmp_path: Path, config: dict, sentence: str):
    with pytest.raises(UserError, match=sentence):
        check_inputs([entry(source=folder(tmp_path / "m", **config))], MINILM)


def test_a_folder_without_config_or_weights_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"no config\.json"):
        check_inputs([entry(source=str(tmp_path))], MINILM)
    source = folder(tmp_path / "m", weights=False, **LLAMA)
    with pytest.raises(UserError, match="no weights"):
        check_inputs([entry(source=source, layers=[0], ctx_len=64)], MINILM)


def test_an_ner_source_must_be_a_model(tmp_path: Path):
    with pytest.raises(UserError, match="ner: source"):
        check_ner_source(str(tmp_path))
    with pytest.raises(UserError, match="ner: source"):
        check_ner_source(SMOLLM)
    (tmp_path / "gliner_config.json").write_text("{}")
    check_ner_source(str(tmp_path))
