"""The comparison of two models states what differs from the demo, and the two make a study."""

from pathlib import Path

import yaml
from snakemake.utils import update_config

from medsae.config import Layout, parse_config

CONFIG = Path(__file__).parents[2] / "config"


def test_a_model_is_compared_with_its_own_network_or_another_of_random_weights():
    raw = yaml.safe_load((CONFIG / "config.yaml").read_text())
    both = [model | {"name": f"other-{model['name']}", "source": "o/m"} for model in raw["models"]]
    assert parse_config(raw | {"models": raw["models"] + both}).untrained == {
        "smollm2-135m": "smollm2-135m-random",
        "other-smollm2-135m": "other-smollm2-135m-random",
    }
    raw["models"][0]["source"] = "some/other-model"
    assert parse_config(raw).untrained == {"smollm2-135m": "smollm2-135m-random"}
    del raw["models"][1]
    assert parse_config(raw).untrained == {}


def test_two_models_at_two_layers_beside_random_weights():
    raw = yaml.safe_load((CONFIG / "config.yaml").read_text())
    demo = parse_config(raw)
    update_config(raw, yaml.safe_load((CONFIG / "two-models.yaml").read_text()))
    study = parse_config(raw)
    assert len({model.source for model in study.models}) == 2
    assert all(len(model.layers) == 2 for model in study.models)
    assert study.untrained == {
        name: f"{name}-random" for name in ("smollm2-135m", "qwen2.5-coder-0.5b")
    }
    for layer in (8, 16):
        sae = study.saes[0].name
        place = study.untrained_place("qwen2.5-coder-0.5b", layer, sae)
        assert place == ("qwen2.5-coder-0.5b-random", layer, sae)
    assert demo.untrained == {"smollm2-135m": "smollm2-135m-random"}
    # notes, entities and autoencoders are the demo's; the results are apart
    assert (study.ner, study.saes) == (demo.ner, demo.saes)
    assert Layout(study).corpus("x") != Layout(demo).corpus("x")
    assert study.corpus.model_copy(update={"name": demo.corpus.name}) == demo.corpus
