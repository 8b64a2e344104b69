"""On a real Slurm: what is asked for, and what happens to jobs that are killed."""

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SNAKEFILE = str(Path(__file__).parent / "Snakefile")


def requests(cluster, rule: str) -> list[dict[str, str]]:
    """The jobs of ``rule``, oldest first."""
    return [job for job in cluster.history() if f"rule_{rule}" in job.get("Comment", "")]


def test_killed_jobs_are_resubmitted_with_more_and_succeed(cluster, snakemake, tmp_path):
    snakemake(tmp_path, "all", "--snakefile", SNAKEFILE).succeeds(timeout=900)

    assert (tmp_path / "memory").read_text() == "1200\n"
    memory = requests(cluster, "needs_memory")
    assert [job["MinMemoryNode"] for job in memory] == ["600M", "1200M"]
    # Without cgroups a job killed for memory counts as failed.
    assert [job["JobState"] for job in memory] == ["FAILED", "COMPLETED"]

    # On a busy machine the second attempt may be too short as well.
    timed = requests(cluster, "needs_time")
    attempts = len(timed)
    assert attempts in (2, 3, 4)
    assert (tmp_path / "time").read_text() == f"{attempts}\n"
    assert [job["TimeLimit"] for job in timed] == [f"00:0{n + 1}:00" for n in range(attempts)]
    assert [job["JobState"] for job in timed] == ["TIMEOUT"] * (attempts - 1) + ["COMPLETED"]

    assert (tmp_path / "gpu").read_text() == "0,1\n"
    (with_gpus,) = requests(cluster, "needs_gpus")
    assert with_gpus["Partition"] == "gpu"
    assert with_gpus["TresPerJob"] == "gres:gpu:2"


def test_a_cancelled_job_is_submitted_again(cluster, snakemake, tmp_path):
    run = snakemake(tmp_path, "waited", "--snakefile", SNAKEFILE)
    run.wait_for((tmp_path / "started").exists, timeout=300)
    (tmp_path / "seen").touch()
    (job,) = cluster.jobs()
    subprocess.run(["scancel", job], check=True)
    run.succeeds(timeout=300)
    assert (tmp_path / "waited").exists()
