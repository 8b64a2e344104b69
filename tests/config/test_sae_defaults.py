"""The configuration's SAE keys are the engine's, with the engine's defaults."""

import dataclasses

import pytest

from medsae.config.sae_section import Sae, SaeTraining
from medsae.sae.architectures.registry import architectures
from medsae.sae.config import SAEConfig, TrainConfig


def engine_defaults(config: type) -> dict[str, object]:
    return {
        field.name: field.default
        for field in dataclasses.fields(config)
        if field.default is not dataclasses.MISSING
    }


def test_training_keys_and_defaults_are_the_engines():
    engine = engine_defaults(TrainConfig)
    del engine["seed"]
    assert {name: field.default for name, field in SaeTraining.model_fields.items()} == engine


def test_every_key_of_the_engine_can_be_set():
    keys = {field.name for field in dataclasses.fields(SAEConfig)}
    assert keys <= set(Sae.model_fields)


def test_k_is_annealed_where_the_engine_does():
    for name, architecture in architectures().items():
        settings = {"name": "a", "architecture": name, "n_latents": 9, "k": 2}
        if architecture.anneals_k:
            Sae(**settings, training={"k_start": 4})
        else:
            with pytest.raises(ValueError, match=rf"k_start is for .*not for {name}"):
                Sae(**settings, training={"k_start": 4})


def test_without_torch_the_training_decides(monkeypatch):
    monkeypatch.setattr("medsae.config.sae_section.find_spec", lambda name: None)
    sae = Sae(name="a", architecture="relu", n_latents=9, k=2, training={"k_start": 4})
    assert sae.training.k_start == 4
