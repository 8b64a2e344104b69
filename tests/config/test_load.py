"""A wrong configuration is refused with the key, what is wrong and what to do."""

import copy
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from medsae.config import parse_config
from medsae.io import UserError

ROOT = Path(__file__).parents[2]
DEMO = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def changed(path: str, value) -> dict:
    raw = copy.deepcopy(DEMO)
    *parents, last = path.split(".")
    place = raw
    for part in parents:
        place = place[int(part) if part.isdigit() else part]
    place[last] = value
    return raw


def refused(path: str, value) -> str:
    with pytest.raises(UserError) as caught:
        parse_config(changed(path, value))
    return str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml"), key=str))
def test_every_shipped_configuration_is_valid(path):
    raw = yaml.safe_load(path.read_text())
    if "corpus" not in raw and "imaging" not in raw:
        pytest.skip("not a configuration of the workflow")
    if "--configfile config/config.yaml " in path.read_text():  # read after the demo's
        demo = copy.deepcopy(DEMO)
        update_config(demo, raw)
        raw = demo
    parse_config(raw)


@pytest.mark.parametrize(
    ("path", "near"),
    [("corpus.patient_colum", "patient_id_column"), ("saes.0.n_latent", "n_latents")],
)
def test_a_mistyped_key_is_told_with_the_nearest_known_one(path, near):
    message = refused(path, 1)
    assert path.split(".")[-1] in message
    assert near in message


def test_an_unknown_top_level_key_is_refused():
    assert "unknown key 'modles'" in refused("modles", [])


def test_k_beyond_the_dictionary_is_refused():
    assert "k 9999 is larger than n_latents 4608" in refused("saes.0.k", 9999)


def test_a_missing_key_is_named():
    raw = copy.deepcopy(DEMO)
    del raw["corpus"]["notes"]
    with pytest.raises(UserError, match=r"'corpus\.notes' is missing"):
        parse_config(raw)


def test_a_wrong_type_shows_the_value():
    assert "'corpus.shards' is 'many'" in refused("corpus.shards", "many")


def test_names_that_cannot_be_folders_are_refused():
    assert "becomes a folder name" in refused("corpus.name", "a/b")


def test_two_entries_of_one_name_are_refused():
    assert "used twice" in refused("saes", DEMO["saes"] * 2)


def test_an_unknown_sae_is_refused():
    assert "'nope'" in refused("models.0.saes", ["nope"])
