"""Processes that end with the test that started them, or at the latest with the next.

A run may be killed at any point. Everything it starts dies with it where the system can see
to that, and carries a mark in its environment, by which the next run finds what is left.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

DAEMONS = ("slurmctld", "slurmd", "slurmstepd")
MARK = "MEDSAE_TEST_CLUSTER"
# What takes a second on a free machine may take minutes on a busy one.
PATIENCE_S = 300


def environment() -> dict[str, str]:
    """This process' environment without what would lead to another Slurm or Snakemake profile."""
    foreign = ("SLURM", "SBATCH", "SRUN", "SNAKEMAKE")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def spawn(command: list[str], output: Path, **variables: str) -> subprocess.Popen:
    """Start ``command``, marked as the cluster's and dying with this process."""
    with output.open("w") as handle:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            env=environment() | variables | {MARK: "1"},
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
        )


def wait_until(condition: Callable[[], object], otherwise: str, why: Callable[[], str]) -> None:
    """Wait for ``condition()``; raises ``RuntimeError`` after ``PATIENCE_S``."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{otherwise}:\n{why()}")
        time.sleep(0.2)


def end_marked_processes() -> None:
    """Kill daemons, jobs and submitters of this or an earlier cluster; return when all are gone."""
    wait_until(_none_is_left, "processes cannot be killed", lambda: str(marked_processes()))


def marked_processes() -> list[int]:
    """Ids of the living processes that were started by ``spawn``, or by a process that was.

    Some of Slurm's daemons write over their environment; with no other Slurm on this machine
    (see ``why_not``) all are the cluster's.
    """
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            variables = (place / "environ").read_bytes()
            name = (place / "comm").read_text().strip()
            state = (place / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has ended meanwhile
            continue
        ours = f"{MARK}=".encode() in variables or name in DAEMONS
        if ours and state != "Z" and int(place.name) != os.getpid():
            found.append(int(place.name))
    return found


def _none_is_left() -> bool:
    pids = marked_processes()
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return not pids


def free_ports(n: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    probes = [socket.socket() for _ in range(n)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
