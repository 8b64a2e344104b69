"""What was planned and asked for, against what the shrunken study really took."""

import csv
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from medsae.config import parse_config
from medsae.config.plan import make_plan
from medsae.config.resources import Requests
from tests.e2e.conftest import study_config

pytestmark = pytest.mark.slow


@pytest.fixture
def config(tmp_path):
    return parse_config(study_config(tmp_path))


@pytest.fixture
def corpus(study, config) -> Path:
    return study / config.results_dir / config.corpus.name


@pytest.fixture
def plan(config, corpus):
    notes = pl.read_parquet(corpus / "notes/notes.parquet", columns=["text"])["text"]
    return make_plan(config, notes.len(), notes.str.len_chars().sum())


def megabytes(*patterns: Path) -> float:
    files = {
        file
        for pattern in patterns
        for path in pattern.parent.glob(pattern.name)
        for file in [path, *path.rglob("*")]
        if file.is_file()
    }
    return sum(file.stat().st_size for file in files) / 1e6


def test_the_tokens_are_those_planned_within_a_tenth(plan, config, corpus):
    for model in config.models:
        tables = (corpus / model.name / "tokens").glob("*.parquet")
        n_tokens = sum(pl.scan_parquet(table).select(pl.len()).collect().item() for table in tables)
        assert n_tokens == pytest.approx(plan.n_tokens, rel=0.1)


@pytest.mark.parametrize("what", ["notes", "tokens", "activations", "top latents of every token"])
def test_files_take_what_was_planned_within_a_factor_of_two(plan, corpus, what):
    planned = [artifact for artifact in plan.artifacts if artifact.what == what]
    assert planned
    for artifact in planned:
        real = megabytes(corpus / artifact.path)
        assert 0.5 < artifact.gb * 1000 / real < 2, f"{artifact.path}: {artifact.gb} GB, {real} MB"


MEMORY = {
    "extract_activations": "extraction_memory_mb",
    "ablate_latents": "extraction_memory_mb",
    "measure_faithfulness": "extraction_memory_mb",
    "train_sae": "sae_training_memory_mb",
    "calibrate_sae": "sae_encoding_memory_mb",
    "export_topk": "sae_encoding_memory_mb",
    "recognise_entities": "ner_memory_mb",
    "adapt_ner": "ner_memory_mb",
}


@pytest.mark.parametrize("rule", MEMORY)
def test_no_job_took_more_memory_than_it_would_ask_for(config, corpus, rule):
    records = list((corpus / "benchmarks" / rule).glob("*.tsv"))
    assert records
    asked = [
        getattr(Requests(config), MEMORY[rule])(SimpleNamespace(model=model.name, sae=sae.name))
        for model in config.models
        for sae in config.saes_of(model)
    ]
    for record in records:
        with record.open() as table:
            (row,) = csv.DictReader(table, delimiter="\t")
        assert float(row["max_rss"]) < min(asked), record.name
