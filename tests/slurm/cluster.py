"""A Slurm of one node on loopback, with two GPUs that are not there.

The daemons read /etc/slurm (job steps drop SLURM_CONF), so a machine that has a Slurm
configuration of its own is left alone. Everything else lives in one run folder.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

ETC = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf", "cgroup.conf")
MARK = "# MedSAE test cluster: removed when the tests end.\n"
MEMORY_MB = 12000
N_GPUS = 2
PORTS = (16817, 16818)

SLURM_CONF = """\
ClusterName=ci
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
MinJobAge=3600
KillWait=2
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:fake:{gpus}
PartitionName=cpu Nodes={host} Default=YES MaxTime=4:00:00 State=UP
PartitionName=gpu Nodes={host} Default=NO MaxTime=4:00:00 State=UP
"""


class Cluster:
    """Owns the daemons and the files under /etc/slurm between ``start`` and ``stop``."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def start(self) -> None:
        """Raises ``RuntimeError`` if the node is not idle within half a minute."""
        host = socket.gethostname().split(".")[0]
        for folder in ("state", "spool", "dev"):
            (self.run / folder).mkdir(parents=True)
        for number in range(N_GPUS):
            (self.run / f"dev/fakegpu{number}").symlink_to("/dev/null")
        texts = {
            "slurm.conf": SLURM_CONF.format(
                host=host,
                run=self.run,
                ports=PORTS,
                cpus=os.cpu_count(),
                memory=MEMORY_MB,
                gpus=N_GPUS,
            ),
            "gres.conf": f"AutoDetect=off\nNodeName={host} Name=gpu Type=fake "
            f"File={self.run}/dev/fakegpu[0-{N_GPUS - 1}]\n",
            "cgroup.conf": "CgroupPlugin=cgroup/v1\n",
        }
        ETC.mkdir(exist_ok=True)
        for name, text in texts.items():
            (ETC / name).write_text(MARK + text)
        subprocess.run(["slurmctld"], check=True, timeout=30)
        subprocess.run(["slurmd", "-N", host], check=True, timeout=30)
        deadline = time.monotonic() + 30
        while self._state() != "idle":
            if time.monotonic() > deadline:
                raise RuntimeError(f"the node is '{self._state()}':\n{self._logs()}")
            time.sleep(0.5)

    def stop(self) -> None:
        """Cancel what still runs, end the daemons, take the files away."""
        subprocess.run(["scancel", "--user=root", "--hurry"], timeout=10, capture_output=True)
        deadline = time.monotonic() + 10
        while self.jobs() and time.monotonic() < deadline:
            time.sleep(0.5)
        for name in ("slurmd", "slurmctld"):
            _end(self.run / f"{name}.pid")
        for name in FILES:
            (ETC / name).unlink(missing_ok=True)

    def jobs(self) -> list[str]:
        """Ids of the jobs that wait or run."""
        shown = subprocess.run(["squeue", "-h", "-o", "%i"], capture_output=True, timeout=10)
        return shown.stdout.decode().split()

    def history(self) -> list[dict[str, str]]:
        """Every job this cluster has seen, as `scontrol show job` tells it, oldest first."""
        shown = subprocess.run(
            ["scontrol", "-o", "show", "job"], capture_output=True, text=True, timeout=10
        )
        lines = [line for line in shown.stdout.splitlines() if line.startswith("JobId=")]
        records = [
            dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines
        ]
        return sorted(records, key=lambda record: int(record["JobId"]))

    def _state(self) -> str:
        command = ["timeout", "3", "sinfo", "-h", "-p", "cpu", "-o", "%t"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    def _logs(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted(self.run.glob("*.log")))


def why_not() -> str | None:
    """Why no cluster can be started here, or None if it can."""
    if missing := [name for name in ("slurmctld", "slurmd", "sbatch") if not shutil.which(name)]:
        return f"{', '.join(missing)} not installed: sh tests/slurm/install.sh (needs root)"
    if os.geteuid() != 0:
        return "the test cluster needs root"
    for name in FILES:
        path = ETC / name
        if path.exists() and not path.read_text().startswith(MARK):
            return f"this machine has a Slurm configuration of its own ({path})"
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return f"port {port} is in use (another test cluster?)"
    return None


def _end(pid_file: Path) -> None:
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    for signal in (15, 9):
        try:
            os.kill(pid, signal)
        except ProcessLookupError:
            return
        for _ in range(20):
            time.sleep(0.25)
            if not Path(f"/proc/{pid}").exists():
                return
