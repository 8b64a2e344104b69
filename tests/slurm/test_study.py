"""The shrunken study on a real Slurm: killed on the way, and the same as a local run."""

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import yaml

from tests.e2e.conftest import run_snakemake, study_config

pytestmark = pytest.mark.slow

# What differs from run to run by its nature: times, memory, and training states.
OF_A_RUN = ("logs/", "benchmarks", "checkpoints/", "figures/benchmarks")
OF_A_RUN_COLUMNS = {"tokens_per_s", "peak_memory_mb"}
MINUTES = 60


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> dict:
    """The study of the end-to-end tests, of one model, with checkpoints to go on from."""
    config = study_config(tmp_path_factory.mktemp("config"))
    config["models"] = config["models"][:1]
    config["saes"][0]["training"] |= {"checkpoint_every": 20, "log_every": 20, "n_tokens": 400_000}
    config["saes"][0]["gpus"] = 1
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
    shards = {file: file.stat().st_mtime_ns for file in tmp_path.glob("results/**/tokens/*")}

    # A training job is cancelled after its first checkpoint.
    run = snakemake(tmp_path, *command)
    run.wait_for(made(tmp_path, "checkpoints/**/step_*"), timeout=30 * MINUTES)
    (training,) = (job for job in running(cluster) if "rule_train_sae" in job["Comment"])
    subprocess.run(["scancel", training["JobId"]], check=True)
    run.succeeds(timeout=60 * MINUTES)

    trained = [job for job in cluster.history() if "rule_train_sae" in job.get("Comment", "")]
    assert [job["JobState"] for job in trained] == ["CANCELLED", "COMPLETED"]
    assert all(job["TresPerJob"] == "gres:gpu:1" for job in trained)
    first, second = (int(job["MinMemoryNode"].rstrip("M")) for job in trained)
    assert second >= 2 * first - 500
    (log,) = tmp_path.glob("results/**/logs/train_sae/*.log")
    assert "going on from step" in log.read_text()

    kept = [file for file, time_ns in shards.items() if file.stat().st_mtime_ns == time_ns]
    assert kept, "every finished shard was computed again"
    assert differences(local, tmp_path / "results") == []


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
