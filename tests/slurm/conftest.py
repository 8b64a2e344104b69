"""One test cluster for all tests of this folder, and snakemake run on it as a user would."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


def _load_cluster():
    spec = importlib.util.spec_from_file_location("medsae_test_cluster", HERE / "cluster.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator:
    """The cluster, started once; its daemons are gone when the session ends."""
    module = _load_cluster()
    if reason := module.why_not():
        pytest.skip(reason)
    cluster = module.Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


class Run:
    """A running Snakemake; what it prints goes to a file, since a full pipe would stop it."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        with log.open("w") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
            )

    def output(self) -> str:
        """The end of what it has printed so far."""
        return self.log.read_text()[-6000:]

    def succeeds(self, timeout: float) -> None:
        """Wait for it; fail with its output if it failed."""
        assert self.process.wait(timeout) == 0, self.output()

    def wait_for(self, condition: Callable[[], object], timeout: float) -> None:
        """Wait until ``condition()`` holds; fail if Snakemake ends first."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.5)

    def kill(self) -> None:
        """End it as a power failure would."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def snakemake(cluster, tmp_path_factory) -> Iterator[Callable[..., Run]]:
    """Start `snakemake --profile slurm ...` from the repository root, with the overlay."""
    started: list[Run] = []

    def start(directory: Path, *arguments: str) -> Run:
        command = [sys.executable, "-m", "snakemake", *arguments, "--profile", "slurm"]
        command += ["--workflow-profile", str(HERE / "profile"), "--directory", str(directory)]
        started.append(Run(command, tmp_path_factory.mktemp("log") / "snakemake.log"))
        return started[-1]

    yield start
    for run in started:
        run.kill()
