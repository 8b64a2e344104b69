"""A small study on a real Slurm: killed on the way, and the same as a local run."""

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import yaml

from medsae.config import Config, parse_config
from medsae.config.resources import Requests
from tests.e2e.conftest import run_snakemake, study_config
from tests.e2e.test_estimates_hold import MEMORY

pytestmark = pytest.mark.slow

# What differs from run to run by its nature: times, memory, and training states.
OF_A_RUN = ("logs/", "benchmarks", "checkpoints/", "figures/benchmarks", "figures/training")
OF_A_RUN_COLUMNS = {"tokens_per_s", "peak_memory_mb"}
MINUTES = 60


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> dict:
    """All rules of the study of the end-to-end tests, with as little work in each as goes."""
    config = study_config(tmp_path_factory.mktemp("config"))
    config["demo_corpus"] = {"n_notes": 60, "n_training_notes": 24}
    config["models"] = [config["models"][0] | {"layers": [1]}]
    config["saes"][0] |= {"n_latents": 256, "k": 8, "gpus": 1}
    config["saes"][0]["training"] |= {
        "n_tokens": 800_000,
        "batch_size": 256,
        "checkpoint_every": 20,
        "validate_every": 500,
        "log_every": 100,
    }
    config["ner"]["adapt"] |= {"n_steps": 4, "n_head_steps": 4}
    config["polysemy"] |= {
        "min_occurrences": 3,
        "n_permutations": 99,
        "n_bootstrap": 99,
        "ablation": {"max_latents_per_sense": 1, "max_occurrences_per_sense": 1},
    }
    return config


@pytest.fixture(scope="module")
def local(tmp_path_factory, config) -> Path:
    """The results of the study run without Slurm."""
    folder = tmp_path_factory.mktemp("local")
    run_snakemake(folder, config, "all")
    return folder / "results"


def test_a_study_killed_twice_on_slurm_ends_as_the_local_one(
    cluster, snakemake, config, local, tmp_path
):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    command = ("all", "--snakefile", "Snakefile", "--configfile", str(path))

    # The submitting Snakemake dies in the middle of the shards, and its jobs with it.
    run = snakemake(tmp_path, *command)
    run.wait_for(made(tmp_path, "activations/train-00000.*"), timeout=30 * MINUTES)
    run.kill()
    subprocess.run(["scancel", *cluster.jobs()], check=False)
    snakemake(tmp_path, *command, "--unlock").succeeds(timeout=2 * MINUTES)
    finished = {
        file: file.stat().st_mtime_ns
        for file in (*tmp_path.glob("results/**/tokens/*"), *tmp_path.glob("results/demo/ner/*/*"))
    }

    # A training job is cancelled after its first checkpoint.
    run = snakemake(tmp_path, *command)
    run.wait_for(made(tmp_path, "checkpoints/**/step_*"), timeout=30 * MINUTES)
    (training,) = (job for job in running(cluster) if "rule_train_sae" in job["Comment"])
    subprocess.run(["scancel", training["JobId"]], check=True)
    run.succeeds(timeout=60 * MINUTES)

    trained = [job for job in cluster.history() if "rule_train_sae" in job.get("Comment", "")]
    assert [job["JobState"] for job in trained] == ["CANCELLED", "COMPLETED"]
    assert all(job["TresPerJob"] == "gres:gpu:1" for job in trained)
    assert all(job["Partition"] == "gpu" for job in trained)
    (log,) = tmp_path.glob("results/**/logs/train_sae/*.log")
    assert "going on from step" in log.read_text()

    kept = [file for file, time_ns in finished.items() if file.stat().st_mtime_ns == time_ns]
    assert kept, "every finished shard was computed again"
    check_requests(cluster, parse_config(config))
    assert differences(local, tmp_path / "results") == []


def check_requests(cluster, config: Config) -> None:
    """Every job asked for the memory of its formula: once, or more after it was killed."""
    formulas, wildcards = Requests(config), SimpleNamespace(model="smollm2-135m", sae="topk-1024")
    for rule, name in MEMORY.items():
        formula = getattr(formulas, name)
        allowed = {f"{formula(wildcards, attempt=attempt)}M" for attempt in (1, 2, 3)}
        jobs = [job for job in cluster.history() if f"rule_{rule}_" in job.get("Comment", "") + "_"]
        assert jobs, rule
        assert jobs[0]["MinMemoryNode"] == f"{formula(wildcards, attempt=1)}M"
        assert {job["MinMemoryNode"] for job in jobs} <= allowed


def made(folder: Path, pattern: str) -> Callable[[], bool]:
    """Whether an artifact like ``pattern`` exists by now."""
    return lambda: any(folder.glob(f"results/**/{pattern}"))


def running(cluster) -> list[dict[str, str]]:
    return [job for job in cluster.history() if job["JobState"] == "RUNNING"]


def differences(one: Path, other: Path) -> list[str]:
    """Artifacts that only one of two results folders has, or that differ."""
    names = artifacts(one) | artifacts(other)
    return sorted(name for name in names if digest(one / name) != digest(other / name))


def artifacts(results: Path) -> set[str]:
    files = (path for path in results.rglob("*") if path.is_file())
    names = {path.relative_to(results).as_posix() for path in files}
    return {name for name in names if not any(part in name for part in OF_A_RUN)}


def digest(path: Path) -> str:
    """A fingerprint of the content; for the table of a training, without its times."""
    if not path.exists():
        return "missing"
    if path.name == "train_metrics.parquet":
        table = pl.read_parquet(path)
        return table.drop(OF_A_RUN_COLUMNS & set(table.columns)).write_json()
    return hashlib.sha256(path.read_bytes()).hexdigest()
