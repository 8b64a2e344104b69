"""One test cluster for all tests of this folder, and snakemake run on it as a user would.

What takes long and needs no attention (a job that has to reach its time limit, the study
run without Slurm) starts with the first test and goes on beside the others.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.slurm.cluster import ETC, FILE_MARK, Cluster, why_not
from tests.slurm.processes import spawn
from tests.slurm.study import TARGETS, make_study

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PATIENCE_S = 3600
"""Only a test that hangs takes so long."""


class Run:
    """A running Snakemake; what it prints goes to a file, since a full pipe would stop it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.log = folder / f"snakemake-{time.monotonic_ns()}.log"
        program = [sys.executable, str(HERE / "poll_often.py")]
        self.process = spawn(
            [*program, *arguments, "--directory", str(folder)],
            self.log,
            HF_HUB_OFFLINE="1",
            PATH=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        )

    def output(self) -> str:
        """The end of what it has printed so far."""
        return self.log.read_text()[-6000:]

    def succeeds(self) -> None:
        """Wait for it; fail with its output if it failed."""
        assert self.process.wait(PATIENCE_S) == 0, self.output()

    def wait_for(self, condition: Callable[[], object], every_s: float = 0.5) -> None:
        """Wait until ``condition()`` holds; fail if Snakemake ends first."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(every_s)

    def kill(self) -> None:
        """End it as a power failure would."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """The cluster, started once; nothing of it is left when the session ends."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    cluster = Cluster(folder / "run")
    # What a killed run leaves behind: a job, and a configuration of daemons that are gone.
    leftover = spawn(["sh", "-c", "sleep 3600 & wait"], folder / "leftover.out")
    ETC.mkdir(parents=True, exist_ok=True)
    (ETC / "slurm.conf").write_text(f"{FILE_MARK}ClusterName=gone\n")
    try:
        cluster.start()
        assert leftover.wait(PATIENCE_S) < 0  # by a signal
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def on_slurm(cluster) -> Callable[..., Run]:
    """Start `snakemake --profile slurm ...` in a folder, with the overlay of the tests."""
    profiles = ("--profile", str(ROOT / "slurm"), "--workflow-profile", str(HERE / "profile"))
    return lambda folder, *arguments: Run(folder, *arguments, *profiles)


@pytest.fixture(scope="session")
def failing_jobs(on_slurm, tmp_path_factory) -> tuple[Path, Run]:
    """A run of the jobs that fail, and its folder."""
    folder = tmp_path_factory.mktemp("failing")
    return folder, on_slurm(folder, "all", "--snakefile", str(HERE / "Snakefile"))


@pytest.fixture(scope="session")
def config(tmp_path_factory) -> dict:
    """The configuration of the study."""
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def study(tmp_path_factory, config) -> tuple[str, ...]:
    """What Snakemake is asked for the study."""
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return (*TARGETS, "--snakefile", str(ROOT / "Snakefile"), "--configfile", str(path))


@pytest.fixture(scope="session")
def local_run(cluster, study, tmp_path_factory) -> tuple[Path, Run]:
    """The study run without Slurm, and its folder. (Its processes are the cluster's to end.)"""
    folder = tmp_path_factory.mktemp("local")
    return folder, Run(folder, *study, "--cores", "2", "--workflow-profile", "none")
