"""One test cluster for all tests of this folder, and snakemake run on it as a user would."""

import importlib.util
import os
import subprocess
import sys
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


@pytest.fixture
def snakemake(cluster) -> Callable[..., subprocess.Popen]:
    """Start `snakemake --profile slurm ...` from the repository root, with the overlay."""
    started: list[subprocess.Popen] = []

    def start(directory: Path, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "snakemake", "--profile", "slurm"]
        command += ["--workflow-profile", str(HERE / "profile"), "--directory", str(directory)]
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
