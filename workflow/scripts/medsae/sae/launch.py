"""Training in several processes of this machine, started by torchrun.

    the job                 ``train``: starts the next, and logs what all of them say
    └─ torchrun             ``python -m medsae.sae.launch REQUEST N``: starts and watches N workers
       └─ workers           ``python -m medsae.sae.launch REQUEST``: ``train_saes``

Each ends when the one above it is gone, so that a job killed with SIGKILL leaves nothing behind.
"""

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsae.io import UserError, write_json
from medsae.sae.config import SAEConfig, TrainConfig
from medsae.sae.train import train_saes

logger = logging.getLogger("medsae.sae")

REQUEST_NAME = "request.json"
ERROR_NAME = "error.txt"
PARENT_KEY = "MEDSAE_PARENT"  # process id of the one above
SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Request:
    """The arguments of ``train_saes``; ``device`` is ``cpu`` or ``cuda``."""

    sae_configs: list[SAEConfig]
    train_config: TrainConfig
    train_shards: list[Path]
    val_shards: list[Path]
    checkpoint_dirs: list[Path]
    device: str = "cpu"
    shard_latents: bool | None = None


def train(request: Request, n_processes: int, n_threads: int) -> None:
    """Do what ``train_saes`` does, in ``n_processes`` that have ``n_threads`` together.

    With CUDA there must be a GPU for each. Raises ``UserError`` as ``train_saes`` does. What the
    processes print goes to this one's log.
    """
    if n_processes == 1:
        train_saes(**_arguments(request))
        return
    folder = Path(request.checkpoint_dirs[0])
    folder.mkdir(parents=True, exist_ok=True)
    error = folder / ERROR_NAME
    error.unlink(missing_ok=True)
    write_json(folder / REQUEST_NAME, _to_json(request))
    library = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [library, os.environ.get("PYTHONPATH", "")]))
    changes = {
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": str(max(1, n_threads // n_processes)),
        PARENT_KEY: str(os.getpid()),
    }
    arguments = (str(folder / REQUEST_NAME), str(n_processes))
    command = [sys.executable, "-m", "medsae.sae.launch", *arguments]
    with subprocess.Popen(
        command,
        env={**os.environ, **changes},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            logger.info("%s", line.rstrip())
    if error.exists():
        raise UserError(error.read_text(encoding="utf-8"))
    if running.returncode:
        raise RuntimeError(f"training in {n_processes} processes ended with {running.returncode}")


def _arguments(request: Request) -> dict[str, Any]:
    return {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}


def _to_json(request: Request) -> dict[str, Any]:
    return {
        **_arguments(request),
        "sae_configs": [config.to_dict() for config in request.sae_configs],
        "train_config": request.train_config.to_dict(),
        **{
            name: [str(Path(path).resolve()) for path in getattr(request, name)]
            for name in ("train_shards", "val_shards", "checkpoint_dirs")
        },
    }


def _from_json(values: dict[str, Any]) -> Request:
    paths = ("train_shards", "val_shards", "checkpoint_dirs")
    return Request(
        sae_configs=[SAEConfig.from_dict(config) for config in values["sae_configs"]],
        train_config=TrainConfig.from_dict(values["train_config"]),
        **{name: [Path(path) for path in values[name]] for name in paths},
        device=values["device"],
        shard_latents=values["shard_latents"],
    )


def _start_workers(path: Path, n_processes: int) -> None:
    """What torchrun's process does."""
    from torch.distributed import run

    _end_with_parent()
    os.environ[PARENT_KEY] = str(os.getpid())  # of the workers
    module = ["-m", "medsae.sae.launch", str(path)]
    run.main(["--standalone", f"--nproc-per-node={n_processes}", *module])


def _work(path: Path) -> None:
    """What each worker does; the first reports."""
    _end_with_parent()
    is_first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if is_first else logging.WARNING, format="%(message)s")
    request = _from_json(json.loads(path.read_text(encoding="utf-8")))
    try:
        train_saes(**_arguments(request))
    except UserError as error:
        path.with_name(ERROR_NAME).write_text(str(error), encoding="utf-8")
        sys.exit(1)


def _end_with_parent() -> None:
    """Have this process killed as soon as the one that started it has ended, however it did."""
    parent = int(os.environ[PARENT_KEY])

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watcher", daemon=True).start()


if __name__ == "__main__":
    request_path, *counts = sys.argv[1:]
    if counts:
        _start_workers(Path(request_path), int(counts[0]))
    else:
        _work(Path(request_path))
