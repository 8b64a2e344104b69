"""On a real Slurm: jobs that are killed are submitted again, larger where that helps."""

import pytest

pytestmark = pytest.mark.slow


def test_killed_jobs_are_submitted_again_and_succeed(cluster, failing_jobs, local_run):
    folder, run = failing_jobs
    run.wait_for((folder / "waiting").exists)
    (folder / "may_end").touch()
    cluster.cancel(*(job["JobId"] for job in cluster.history_of("waits")))
    run.succeeds()

    cancelled = cluster.history_of("waits")
    assert [job["JobState"] for job in cancelled] == ["CANCELLED", "COMPLETED"]

    assert (folder / "memory").read_text() == "1200\n"
    memory = cluster.history_of("needs_memory")
    assert [job["MinMemoryNode"] for job in memory] == ["600M", "1200M"]
    # Without cgroups a job killed for memory counts as failed.
    assert [job["JobState"] for job in memory] == ["FAILED", "COMPLETED"]

    # On a busy machine the second attempt may be too short as well.
    timed = cluster.history_of("needs_time")
    attempts = len(timed)
    assert attempts in (2, 3, 4)
    assert (folder / "time").read_text() == f"{attempts}\n"
    assert [job["TimeLimit"] for job in timed] == [f"00:0{n + 1}:00" for n in range(attempts)]
    assert [job["JobState"] for job in timed] == ["TIMEOUT"] * (attempts - 1) + ["COMPLETED"]

    assert (folder / "gpu").read_text() == "0,1\n"
    (with_gpus,) = cluster.history_of("needs_gpus")
    assert with_gpus["Partition"] == "gpu"
    assert with_gpus["TresPerJob"] == "gres:gpu:2"
