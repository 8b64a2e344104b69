"""What results depend on reaches Snakemake; what they do not depend on does not."""

import re
from pathlib import Path

import pytest
import yaml

from medsae.config import parse_config
from medsae.config.ner_section import Ner
from medsae.config.sae_section import SaeTraining
from medsae.config.schema import LanguageModel
from medsae.sae.config import RUNTIME, TrainConfig

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "workflow/scripts"


def test_the_keys_that_change_no_weights_are_the_engines():
    assert SaeTraining.runtime_keys() == set(RUNTIME)


def test_a_section_is_what_is_tracked_and_what_is_not():
    training = SaeTraining(n_tokens=5, keep_last=7)
    tracked, runtime = training.tracked(), training.runtime()
    assert (tracked["n_tokens"], runtime["keep_last"]) == (5, 7)
    assert not tracked.keys() & runtime.keys()
    assert tracked | runtime == training.model_dump()
    assert TrainConfig(**tracked, **runtime).n_tokens == 5


def test_sections_inside_leave_their_runtime_keys_out():
    config = parse_config(
        yaml.safe_load((ROOT / "config/medgemma-27b.yaml").read_text(encoding="utf-8"))
    )
    sae = config.sae("topk-65536").tracked(exclude={"gpus"})
    assert sae["training"]["n_tokens"] == 1_000_000_000
    assert not {"gpus", *RUNTIME} & (sae.keys() | sae["training"].keys())
    assert config.model("medgemma-27b").runtime() == {"tokens_per_batch": 8192}


def test_no_rule_tracks_a_runtime_key():
    rules = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.smk"))
    keys = SaeTraining.runtime_keys() | LanguageModel.runtime_keys()
    assert not {key for key in keys if re.search(rf"\b{key}\b", rules)}
    assert Ner.runtime_keys() == {"batch_size"}
    assert "model_dump(exclude" not in (ROOT / "rules/common.smk").read_text(encoding="utf-8")


def statistics_of_rules() -> dict[str, set[str]]:
    """Script -> the keys of the statistics that its rule hands to it."""
    text = (ROOT / "rules/metrics.smk").read_text(encoding="utf-8")
    blocks = re.split(r"^rule ", text, flags=re.MULTILINE)[1:]
    found = {}
    for block in blocks:
        if (call := re.search(r"statistics=statistics\((.*?)\)", block, re.DOTALL)) is not None:
            script = re.search(r"scripts/(\w+)\.py", block)[1]
            found[script] = {*re.findall(r'"(\w+)"', call[1]), "seed"}
    return found


def statistics_used(path: Path, seen: set[Path]) -> set[str]:
    """Keys of ``statistics`` that a script or the modules of its room look up."""
    seen.add(path)
    text = path.read_text(encoding="utf-8")
    keys = set(re.findall(r'statistics\["(\w+)"\]', text))
    for module in re.findall(r"from medsae\.polysemy\.(\w+) import", text):
        place = SCRIPTS / f"medsae/polysemy/{module}.py"
        if place not in seen:
            keys |= statistics_used(place, seen)
    return keys


@pytest.mark.parametrize(("script", "keys"), statistics_of_rules().items())
def test_a_rule_tracks_the_statistics_that_its_script_uses(script, keys):
    assert statistics_used(SCRIPTS / f"{script}.py", set()) == keys
