"""A Slurm of one node on loopback, with two GPUs that are not there.

The daemons read /etc/slurm (job steps drop SLURM_CONF), so a machine that has a Slurm
configuration of its own is left alone. Everything else lives in one run folder. One cluster
at a time runs on a machine: a second waits for the first to end.

A run that was killed leaves jobs and files behind. They are marked, the files in their first
line; the next run ends and overwrites what is marked before it starts.
"""

import fcntl
import os
import shutil
import socket
import subprocess
from pathlib import Path

from tests.slurm.processes import (
    end_marked_processes,
    environment,
    free_ports,
    spawn,
    wait_until,
)

ETC = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf", "cgroup.conf")
LOCK = Path("/run/medsae-test-cluster.lock")
FILE_MARK = "# MedSAE test cluster: removed when the tests end.\n"
MEMORY_MB = 100_000
N_GPUS = 2

SLURM_CONF = """\
ClusterName=medsae
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={run}/state
SlurmdSpoolDir={run}/spool
SlurmctldPidFile={run}/slurmctld.pid
SlurmdPidFile={run}/slurmd.pid
SlurmctldLogFile={run}/slurmctld.log
SlurmdLogFile={run}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=200
SchedulerParameters=sched_interval=1,bf_interval=1
GresTypes=gpu
MinJobAge=86400
MessageTimeout=100
SlurmdTimeout=0
KillWait=2
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:fake:{gpus}
PartitionName=cpu Nodes={host} Default=YES MaxTime=4:00:00 State=UP
PartitionName=gpu Nodes={host} Default=NO MaxTime=4:00:00 State=UP
"""


class Cluster:
    """Owns the daemons and the files under /etc/slurm between ``start`` and ``stop``.

    Making one waits until no other process has one.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._daemons: dict[str, subprocess.Popen] = {}
        self._lock = LOCK.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # let go by the system if this process is killed

    def start(self) -> None:
        """End what an earlier run has left, then start.

        Raises ``RuntimeError`` if a daemon ends or the node does not become idle.
        """
        end_marked_processes()
        host = socket.gethostname().split(".")[0]
        for folder in ("state", "spool", "dev"):
            (self.run / folder).mkdir(parents=True)
        for number in range(N_GPUS):
            (self.run / f"dev/fakegpu{number}").symlink_to("/dev/null")
        texts = {
            "slurm.conf": SLURM_CONF.format(
                host=host,
                run=self.run,
                ports=free_ports(2),
                # Jobs that only wait do not keep those that compute from starting.
                cpus=6 + (os.cpu_count() or 1),
                memory=MEMORY_MB,
                gpus=N_GPUS,
            ),
            "gres.conf": f"AutoDetect=off\nNodeName={host} Name=gpu Type=fake "
            f"File={self.run}/dev/fakegpu[0-{N_GPUS - 1}]\n",
            "cgroup.conf": "CgroupPlugin=cgroup/v1\n",
        }
        ETC.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (ETC / name).write_text(FILE_MARK + text)
        for command in (["slurmctld", "-D", "-c"], ["slurmd", "-D", "-N", host]):
            self._daemons[command[0]] = spawn(command, self.run / f"{command[0]}.out")
        wait_until(self._is_idle, "the node is not idle", self._logs)

    def stop(self) -> None:
        """End every job and both daemons, and take the files away."""
        end_marked_processes()
        for daemon in self._daemons.values():
            daemon.wait()
        for name in FILES:
            (ETC / name).unlink(missing_ok=True)
        self._lock.close()

    def jobs(self) -> list[str]:
        """Ids of the jobs that wait, run or are about to end."""
        return ask("squeue", "-h", "-o", "%i").split()

    def cancel(self, *jobs: str) -> None:
        """Cancel ``jobs``, those that have ended meanwhile excepted, and wait for their end."""
        subprocess.run(["scancel", *jobs], env=environment(), capture_output=True)
        wait_until(lambda: not {*jobs} & {*self.jobs()}, "jobs go on after scancel", self._logs)

    def history(self) -> list[dict[str, str]]:
        """Every job this cluster has seen, as `scontrol show job` tells it, oldest first."""
        shown = ask("scontrol", "-o", "show", "job")
        lines = [line for line in shown.splitlines() if line.startswith("JobId=")]
        records = [
            dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines
        ]
        return sorted(records, key=lambda record: int(record["JobId"]))

    def history_of(self, rule: str) -> list[dict[str, str]]:
        """The jobs of ``rule``, oldest first."""
        return [job for job in self.history() if rule_of(job) == rule]

    def _is_idle(self) -> bool:
        for name, daemon in self._daemons.items():
            if daemon.poll() is not None:
                raise RuntimeError(f"{name} has ended:\n{self._logs()}")
        command = ["timeout", "60", "sinfo", "-h", "-p", "cpu", "-o", "%t"]
        shown = subprocess.run(command, env=environment(), capture_output=True, text=True)
        return shown.stdout.strip() == "idle"

    def _logs(self) -> str:
        files = (*sorted(self.run.glob("*.log")), *sorted(self.run.glob("*.out")))
        return "\n".join(file.read_text()[-2000:] for file in files)


def rule_of(job: dict[str, str]) -> str:
    """The rule that the Slurm plugin of Snakemake names in a job's comment."""
    return job.get("Comment", "").removeprefix("rule_").partition("_wildcards_")[0]


def why_not() -> str | None:
    """Why no cluster can be started here, or None if it can."""
    if missing := [name for name in ("slurmctld", "slurmd", "sbatch") if not shutil.which(name)]:
        return f"{', '.join(missing)} not installed: sh tests/slurm/install.sh (needs root)"
    if os.geteuid() != 0:
        return "the test cluster needs root"
    for name in FILES:
        path = ETC / name
        if path.exists() and not path.read_text().startswith(FILE_MARK):
            return f"this machine has a Slurm configuration of its own ({path})"
    if not (ETC / FILES[0]).exists() and any(map(_is_daemon, Path("/proc").glob("[0-9]*/comm"))):
        return "a Slurm runs on this machine whose configuration is not in /etc/slurm"
    return None


def _is_daemon(comm: Path) -> bool:
    try:
        return comm.read_text().strip() in ("slurmctld", "slurmd")
    except OSError:  # it has ended meanwhile
        return False


def ask(*command: str) -> str:
    """What a command of Slurm prints; it is asked again while the controller is too busy."""
    answers = []

    def answered() -> bool:
        answers.append(subprocess.run(command, env=environment(), capture_output=True, text=True))
        return answers[-1].returncode == 0

    wait_until(answered, " ".join(command), lambda: answers[-1].stderr)
    return answers[-1].stdout
