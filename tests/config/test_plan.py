"""The plan adds up, and follows the configuration."""

from pathlib import Path

import pytest
import yaml

from medsae.config import parse_config
from medsae.config.plan import as_markdown, assumed_notes, make_plan
from medsae.io import UserError

ROOT = Path(__file__).parents[2]
FULL = ("medgemma-27b", "openbiollm-70b")


def config(name="medgemma-27b", **corpus):
    raw = yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())
    raw["corpus"] |= corpus
    return parse_config(raw)


@pytest.mark.parametrize("name", FULL)
def test_the_published_settings_are_the_shipped_ones(name):
    study = config(name)
    (model,), (sae,) = study.models, study.saes
    published = {"medgemma-27b": (52, 5376, 65_536), "openbiollm-70b": (67, 8192, 98_304)}
    assert (model.layers[0], model.size.d_model, sae.n_latents) == published[name]
    assert (sae.k, study.seed, study.corpus.max_rows) == (128, 42, 50_000)
    assert study.corpus.val_fraction == 0.05
    assert model.layers[0] < model.size.n_layers


def test_activations_are_tokens_times_width_times_bytes():
    plan = make_plan(config(), 50_000, 50_000 * 4_000)
    assert 50e6 < plan.n_tokens < 60e6
    (activations,) = [a for a in plan.artifacts if a.what == "activations"]
    assert activations.gb == pytest.approx(plan.n_tokens * 5376 * 2 / 1e9)


def test_max_rows_shrinks_the_plan_in_proportion():
    whole = make_plan(config(max_rows=None), 200_000, 8e8)
    quarter = make_plan(config(max_rows=50_000), 200_000, 8e8)
    assert quarter.n_notes == 50_000
    assert quarter.n_chars == pytest.approx(whole.n_chars / 4)


def test_a_smaller_file_than_max_rows_is_planned_whole():
    assert make_plan(config(), 10, 1e4).n_notes == 10


def test_totals_are_the_sums_of_the_rows():
    plan = make_plan(config(), 50_000, 5e8)
    record = plan.as_dict()
    assert record["gb"] == pytest.approx(sum(a["gb"] for a in record["artifacts"]))
    assert record["gpu_hours"] == pytest.approx(sum(s["gpu_hours"] for s in record["stages"]))
    assert all(s["gpu_hours"] == s["gpus"] * s["hours"] for s in record["stages"])


def test_a_second_layer_doubles_what_is_per_layer():
    raw = yaml.safe_load((ROOT / "config/medgemma-27b.yaml").read_text())
    once = make_plan(parse_config(raw), 1000, 1e7)
    raw["models"][0]["layers"] = [52, 52 - 26]
    twice = make_plan(parse_config(raw), 1000, 1e7)
    rules = [stage.rule for stage in twice.stages]
    assert rules.count("train_sae") == 2 * [s.rule for s in once.stages].count("train_sae")
    assert rules.count("recognise_entities") == 1


def test_the_full_size_studies_fit_the_gpus_their_configurations_name():
    for name, gb in zip(FULL, (80, 48), strict=True):
        stages = make_plan(config(name), 50_000, 5e8).stages
        assert all(stage.memory_gb < gb for stage in stages if stage.gpus)


def test_the_page_names_every_stage_and_what_was_assumed():
    plan = make_plan(config(), 50_000, 5e8)
    page = as_markdown(plan, "**Assumed:** nothing.")
    assert all(f"`{stage.rule}`" in page for stage in plan.stages)
    assert "**Assumed:** nothing." in page
    assert "50,000 notes" in page


def test_a_study_without_gpus_costs_no_gpu_hours():
    raw = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    plan = make_plan(parse_config(raw), 600, 6e5)
    assert plan.gpu_hours == 0
    assert sum(stage.hours for stage in plan.stages) > 0


def test_notes_that_are_not_there_are_assumed_in_words_or_refused():
    n_notes, n_chars, words = assumed_notes(config())
    assert (n_notes, n_chars) == (50_000, 50_000 * 10_000)
    assert "data/notes.csv" in words
    with pytest.raises(UserError, match=r"data/notes\.csv does not exist"):
        assumed_notes(config(max_rows=None))


def test_the_study_of_both_models_repeats_the_settings_of_each():
    """Only then are the results of the single studies used and not computed again."""
    both = config("both-models")
    for model, sae, name in zip(both.models, both.saes, FULL, strict=True):
        alone = config(name)
        assert model.model_copy(update={"saes": None}) == alone.models[0]
        assert sae == alone.saes[0]
        assert (both.corpus, both.ner, both.polysemy) == (alone.corpus, alone.ner, alone.polysemy)
