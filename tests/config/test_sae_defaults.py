"""The configuration's SAE keys are the engine's, with the engine's defaults."""

import dataclasses

from medsae.config.sae_section import Sae, SaeTraining
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
