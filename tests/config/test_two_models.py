"""The comparison of two models states what differs from the demo, and the two make a study."""

from pathlib import Path

import yaml
from snakemake.utils import update_config

from medsae.config import Layout, parse_config

CONFIG = Path(__file__).parents[2] / "config"


def test_a_model_without_a_control_of_its_own_is_compared_with_another():
    raw = yaml.safe_load((CONFIG / "config.yaml").read_text())
    raw["models"][0]["source"] = "some/other-model"
    assert parse_config(raw).controls == {"smollm2-135m": "smollm2-135m-random"}
    del raw["models"][1]
    assert parse_config(raw).controls == {}


def test_two_models_at_two_layers_beside_random_weights():
    raw = yaml.safe_load((CONFIG / "config.yaml").read_text())
    demo = parse_config(raw)
    update_config(raw, yaml.safe_load((CONFIG / "two-models.yaml").read_text()))
    study = parse_config(raw)
    assert len({model.source for model in study.models}) == 2
    assert all(len(model.layers) == 2 for model in study.models)
    assert study.controls == {  # each the same network
        "smollm2-135m": "smollm2-135m-random",
        "qwen2.5-coder-0.5b": "qwen2.5-coder-0.5b-random",
    }
    assert demo.controls == {"smollm2-135m": "smollm2-135m-random"}
    # notes, entities and autoencoders are the demo's; the results are apart
    assert (study.ner, study.saes) == (demo.ner, demo.saes)
    assert Layout(study).corpus("x") != Layout(demo).corpus("x")
    assert study.corpus.model_copy(update={"name": demo.corpus.name}) == demo.corpus
