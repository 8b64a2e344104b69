"""A small study on a real Slurm: killed on the way, and the same as a local run."""

import hashlib
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from medsae.config import parse_config
from medsae.config.resources import Requests
from tests.e2e.test_estimates_hold import MEMORY
from tests.slurm.cluster import rule_of
from tests.slurm.study import LAYER, N_STEPS, SAE

pytestmark = pytest.mark.slow

# What differs from run to run by its nature: times, memory, and training states.
OF_A_RUN = ("logs/", "benchmarks/", "checkpoints/")
OF_A_RUN_COLUMNS = {"tokens_per_s", "peak_memory_mb"}
SHARDS = ("train-00000", "train-00001", "val-00000")


def test_a_study_killed_twice_on_slurm_ends_as_the_local_one(
    cluster, on_slurm, config, study, local_run, failing_jobs, tmp_path
):
    # The submitting Snakemake dies in the middle of a shard, and all jobs with it.
    run = on_slurm(tmp_path, *study)
    run.wait_for(lambda: "COMPLETED" in states(jobs(cluster, tmp_path), "extract_activations"))
    run.kill()
    cluster.cancel(*(job["JobId"] for job in jobs(cluster, tmp_path) if is_alive(job)))
    finished = completed(jobs(cluster, tmp_path))
    kept = {
        shard
        for shard in SHARDS
        if f"rule_extract_activations_wildcards_tiny_1_{shard}" in finished
    }
    times = {path.stem: path.stat().st_mtime_ns for path in activations(tmp_path)}
    assert 0 < len(kept) < len(SHARDS)
    assert kept <= times.keys()

    # Later, a training job is cancelled after its first checkpoint.
    on_slurm(tmp_path, *study, "--unlock").succeeds()
    run = on_slurm(tmp_path, *study)
    run.wait_for(lambda: any(tmp_path.glob(f"{SAE}/checkpoints/**/step_*")), every_s=0.02)
    (training,) = (job for job in jobs(cluster, tmp_path, "train_sae") if is_alive(job))
    cluster.cancel(training["JobId"])
    run.succeeds()

    # What had finished was left alone; what was killed ran to its end, once.
    submitted = jobs(cluster, tmp_path)
    n_submitted = Counter(job["Comment"] for job in submitted)
    assert {n_submitted[comment] for comment in finished} == {1}
    assert set(completed(submitted).values()) == {1}
    unchanged = {
        path.stem
        for path in activations(tmp_path)
        if path.stat().st_mtime_ns == times.get(path.stem)
    }
    assert unchanged == kept
    assert {path.stem for path in activations(tmp_path)} == set(SHARDS)

    assert states(submitted, "train_sae") == ["CANCELLED", "COMPLETED"]
    (log,) = tmp_path.glob("results/demo/logs/train_sae/*.log")
    step = int(re.search(r"going on from step (\d+)", log.read_text())[1])
    assert 0 < step < N_STEPS
    folder, run = local_run
    run.succeeds()
    assert differences(folder / "results", tmp_path / "results") == []
    assert_every_job_asked_for_what_its_formula_says(cluster, config)


def assert_every_job_asked_for_what_its_formula_says(cluster, config) -> None:
    formulas = Requests(parse_config(config))
    wildcards = SimpleNamespace(model="tiny", sae="topk-1024")
    for rule, name in MEMORY.items():
        formula = getattr(formulas, name)
        # The training was cancelled once, and then asks for more.
        attempts = {1, 2} if rule == "train_sae" else {1}
        asked = {job["MinMemoryNode"] for job in cluster.history_of(rule)}
        assert asked == {f"{formula(wildcards, attempt=attempt)}M" for attempt in attempts}, rule
    for rule, n_gpus in {"extract_activations": 2, "train_sae": 1, "export_topk": 1}.items():
        found = {(job["TresPerJob"], job["Partition"]) for job in cluster.history_of(rule)}
        assert found == {(f"gres:gpu:{n_gpus}", "gpu")}, rule


def jobs(cluster, folder: Path, rule: str | None = None) -> list[dict[str, str]]:
    """The jobs submitted from ``folder``, or those of one rule, oldest first."""
    here = [job for job in cluster.history() if job["WorkDir"] == str(folder)]
    return [job for job in here if rule in (None, rule_of(job))]


def states(submitted: list[dict[str, str]], rule: str) -> list[str]:
    return [job["JobState"] for job in submitted if rule_of(job) == rule]


def completed(submitted: list[dict[str, str]]) -> Counter[str]:
    """How often each job, named by rule and wildcards, ran to its end."""
    return Counter(job["Comment"] for job in submitted if job["JobState"] == "COMPLETED")


def is_alive(job: dict[str, str]) -> bool:
    return job["JobState"] in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")


def activations(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{LAYER}/activations/*.safetensors"))


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
