"""The real workflow on a shrunken study, run once and looked at by every test here."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def study_config(folder: Path) -> dict:
    """The embedded default made small enough for a test, its files named absolutely."""
    config = yaml.safe_load((ROOT / "config/test.yaml").read_text())
    for key, name in {"lexicon": "lexicon.csv", "controls": "controls.csv"}.items():
        config["polysemy"][key] = str(ROOT / "config" / name)
    config["polysemy"]["sense_labels"] = str(ROOT / "config/sense_labels.yaml")
    return config


def run_snakemake(
    folder: Path, config: dict, *arguments: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run snakemake in ``folder`` with ``config``; its output is both streams together."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")),
        *("--directory", str(folder), "--configfile", str(path), "--cores", "2"),
        *arguments,
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if check and done.returncode:
        pytest.fail(f"snakemake {' '.join(arguments)} failed:\n{done.stdout[-6000:]}")
    return done


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the shrunken study has run."""
    folder = tmp_path_factory.mktemp("study")
    run_snakemake(folder, study_config(folder), "all")
    return folder


@pytest.fixture
def small_config() -> Callable[[Path], dict]:
    """A fresh copy of the shrunken configuration, to change at will."""
    return lambda folder: copy.deepcopy(study_config(folder))
