"""Training in several processes of this machine, started by torchrun.

python -m torch.distributed.run --standalone --nproc-per-node=N -m medsae.sae.launch REQUEST
"""

import dataclasses
import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsae.io import UserError, write_json
from medsae.sae.config import SAEConfig, TrainConfig
from medsae.sae.train import train_saes

REQUEST_NAME = "request.json"
ERROR_NAME = "error.txt"


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

    With CUDA there must be a GPU for each. Raises ``UserError`` as ``train_saes`` does.
    """
    if n_processes == 1:
        train_saes(**_arguments(request))
        return
    folder = Path(request.checkpoint_dirs[0])
    folder.mkdir(parents=True, exist_ok=True)
    error = folder / ERROR_NAME
    error.unlink(missing_ok=True)
    write_json(folder / REQUEST_NAME, _to_json(request))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *(f"--nproc-per-node={n_processes}", "-m", "medsae.sae.launch"),
        str(folder / REQUEST_NAME),
    ]
    library = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [library, os.environ.get("PYTHONPATH", "")]))
    threads = str(max(1, n_threads // n_processes))
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": threads}
    )
    if error.exists():
        raise UserError(error.read_text(encoding="utf-8"))
    if done.returncode:
        raise RuntimeError(f"training in {n_processes} processes ended with {done.returncode}")


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


def _work(path: Path) -> None:
    """What each process does; the first reports."""
    is_first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if is_first else logging.WARNING,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
    )
    request = _from_json(json.loads(path.read_text(encoding="utf-8")))
    try:
        train_saes(**_arguments(request))
    except UserError as error:
        path.with_name(ERROR_NAME).write_text(str(error), encoding="utf-8")
        sys.exit(1)


if __name__ == "__main__":
    _work(Path(sys.argv[1]))
