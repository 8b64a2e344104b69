"""Estimates follow from sizes that can be worked out by hand."""

import pytest

from medsae.config import estimates as est
from medsae.config.sae_section import Sae, SaeTraining
from medsae.config.schema import LanguageModel, ModelSize


def language_model(**changes) -> LanguageModel:
    size = ModelSize(parameters_b=27.0, n_layers=60, d_model=5376)
    return LanguageModel(**{"name": "m", "source": "s", "layers": [0], "size": size} | changes)


def autoencoder(**changes) -> Sae:
    return Sae(**{"name": "s", "n_latents": 65_536, "k": 128} | changes)


def test_weights_are_parameters_times_bytes():
    assert est.weights_bytes(language_model(dtype="bfloat16")) == 54e9
    assert est.weights_bytes(language_model(dtype="float32")) == 108e9


def test_gpus_share_the_weights_but_not_the_work():
    one, two = language_model(gpus=1), language_model(gpus=2)
    saved = est.extraction_device_bytes(one) - est.extraction_device_bytes(two)
    assert saved == pytest.approx(27e9)
    assert est.extraction_seconds(one, 5, 1e6) == est.extraction_seconds(two, 5, 1e6)


def test_the_forward_pass_stops_at_the_layer():
    model = language_model()
    whole = est.extraction_flops(model, 59, 10)
    assert whole == 2 * 27e9 * 10
    assert est.extraction_flops(model, 29, 10) == whole / 2


def test_a_gpu_is_faster_than_none():
    with_gpu = est.extraction_seconds(language_model(gpus=1), 59, 1e6)
    assert with_gpu < est.extraction_seconds(language_model(), 59, 1e6)


def test_overlapping_windows_are_computed_more_than_once():
    assert est.window_overhead(language_model(ctx_len=512)) == 1
    assert est.window_overhead(language_model(ctx_len=512, stride=128)) == 4


def test_an_sae_is_two_matrices_and_training_keeps_four_of_each():
    assert est.sae_parameters(autoencoder(), 5376) == 2 * 65_536 * 5376
    assert est.sae_checkpoint_bytes(autoencoder(), 5376) == 8 * 65_536 * 5376
    small = autoencoder(training=SaeTraining(batch_size=1))
    state = est.sae_training_device_bytes(small, 5376) - est.DENSE_CODES * 65_536
    assert state == 16 * 2 * 65_536 * 5376


def test_training_time_is_proportional_to_tokens_latents_and_width():
    base = est.sae_training_seconds(autoencoder(), 1000)
    assert est.sae_training_seconds(autoencoder(), 2000) == pytest.approx(2 * base)
    assert est.sae_training_seconds(autoencoder(n_latents=131_072), 1000) == pytest.approx(2 * base)
    longer = SaeTraining(n_tokens=2 * SaeTraining().n_tokens)
    assert est.sae_training_seconds(autoencoder(training=longer), 1000) == pytest.approx(2 * base)
