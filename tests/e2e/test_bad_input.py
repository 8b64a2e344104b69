"""Bad input stops a real run with one sentence, before any model loads."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import yaml

from tests.e2e.conftest import ROOT, run_snakemake

pytestmark = pytest.mark.slow

MODEL_WORK = ("Preparing the weights", "Tokenizing", "Fine-tuning GLiNER", "Finding entities")


def notes(folder: Path, **columns) -> str:
    path = folder / "notes.csv"
    table = {
        "doc_id": [f"n{i}" for i in range(40)],
        "patient_id": [f"p{i // 2}" for i in range(40)],
        "text": ["Mass in the left lung."] * 40,
    }
    pl.DataFrame(table | columns).write_csv(path)
    return str(path)


def with_notes(config: dict, folder: Path, **columns) -> None:
    config["corpus"] |= {
        "name": "mine",
        "notes": notes(folder, **columns),
        "gold_spans": None,
        "gold_senses": None,
    }


def beyond_depth(config: dict, folder: Path) -> None:
    config["models"][0]["layers"] = [99]


def missing_notes(config: dict, folder: Path) -> None:
    config["corpus"]["notes"] = "nowhere.csv"


def unknown_key(config: dict, folder: Path) -> None:
    config["saes"][0]["n_latentz"] = 5


def k_too_large(config: dict, folder: Path) -> None:
    config["saes"][0]["k"] = 5000


def duplicate_ids(config: dict, folder: Path) -> None:
    with_notes(config, folder, doc_id=["same"] * 40)


def empty_text(config: dict, folder: Path) -> None:
    with_notes(config, folder, text=["x"] * 39 + [None])


def missing_column(config: dict, folder: Path) -> None:
    with_notes(config, folder)
    config["corpus"]["text_column"] = "note"


def unknown_model(config: dict, folder: Path) -> None:
    config["models"][0]["source"] = "nobody/no-such-model"


def missing_package(config: dict, folder: Path) -> None:
    config["models"][0]["source"] = "package:no_such_package/weights.gguf"


def sense_without_label(config: dict, folder: Path) -> None:
    labels = yaml.safe_load((ROOT / "config/sense_labels.yaml").read_text())
    del labels["senses"]["renal"]
    path = folder / "sense_labels.yaml"
    path.write_text(yaml.safe_dump(labels))
    config["polysemy"]["sense_labels"] = str(path)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (missing_notes, "nowhere.csv does not exist"),
        (missing_column, "no column 'note'"),
        (duplicate_ids, "'same' in rows 1, 2"),
        (empty_text, "row 40: column 'text' has no text"),
        (unknown_key, "did you mean 'n_latents'"),
        (k_too_large, "k 5000 is larger than n_latents 1024"),
        (beyond_depth, "30"),
        (unknown_model, "nobody/no-such-model"),
        (missing_package, "no_such_package"),
        (sense_without_label, "renal"),
    ],
)
def test_bad_input_is_refused(
    tmp_path: Path,
    small_config: Callable[[Path], dict],
    spoil: Callable[[dict, Path], None],
    sentence: str,
):
    config = small_config(tmp_path)
    spoil(config, tmp_path)
    done = run_snakemake(tmp_path, config, "all", check=False)
    assert done.returncode != 0
    assert sentence in done.stdout
    assert "Traceback" not in done.stdout
    assert not any(message in done.stdout for message in MODEL_WORK)
