"""The comparison of two models states what differs from the demo, and the two make a study."""

from pathlib import Path

import yaml
from snakemake.utils import update_config

from medsae.config import Layout, parse_config

CONFIG = Path(__file__).parents[2] / "config"


def test_two_models_at_two_layers_beside_random_weights():
    raw = yaml.safe_load((CONFIG / "config.yaml").read_text())
    demo = parse_config(raw)
    update_config(raw, yaml.safe_load((CONFIG / "two-models.yaml").read_text()))
    study = parse_config(raw)
    assert len({model.source for model in study.models}) == 2
    assert all(len(model.layers) == 2 for model in study.models)
    assert [model.random_weights for model in study.models].count(True) == 1
    # notes, entities and autoencoders are the demo's; the results are apart
    assert (study.ner, study.saes) == (demo.ner, demo.saes)
    assert Layout(study).corpus("x") != Layout(demo).corpus("x")
    assert study.corpus.model_copy(update={"name": demo.corpus.name}) == demo.corpus
