"""A training run as a job of a workflow: resumed where it was killed, published when done."""

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from medsae.device import best_device
from medsae.io import atomic_path
from medsae.sae.config import SAEConfig, TrainConfig
from medsae.sae.launch import Request, train
from medsae.sae.train import METRICS_NAME, is_finished
from medsae.store import open_shard


def train_and_publish(
    sae: SAEConfig,
    training: TrainConfig,
    train_shards: Sequence[Path],
    val_shards: Sequence[Path],
    checkpoints: str | Path,
    outputs: Iterable[str],
    n_processes: int = 1,
    n_threads: int = 1,
) -> None:
    """Train ``sae`` in a folder under ``checkpoints`` and copy the files that ``outputs`` name.

    In ``n_processes``, one for each GPU if there are any, that have ``n_threads`` together.
    """
    folder = run_folder(checkpoints, [*train_shards, *val_shards])
    device = best_device().type
    request = Request([sae], training, list(train_shards), list(val_shards), [folder], device)
    if not is_finished(folder, sae, training):
        train(request, n_processes, n_threads)
    for path in outputs:
        with atomic_path(path) as temporary:
            shutil.copyfile(folder / Path(path).name, temporary)


def train_together(
    saes: Sequence[SAEConfig],
    training: TrainConfig,
    train_shards: Sequence[Path],
    val_shards: Sequence[Path],
    checkpoints: Sequence[str | Path],
    n_processes: int = 1,
    n_threads: int = 1,
) -> None:
    """Train ``saes`` on the same batches, each under its own of ``checkpoints``.

    Those that are finished already are not even loaded; ``train_and_publish`` then finds all so.
    What tells that an SAE was finished on other data is removed first: a killed call must not
    leave it looking trained. Its training states stay.
    """
    folders = [run_folder(place, [*train_shards, *val_shards]) for place in checkpoints]
    for folder in folders:
        for metrics in folder.parent.glob(f"*/{METRICS_NAME}"):
            if metrics.parent != folder:
                metrics.unlink()
    waiting = [
        (sae, folder)
        for sae, folder in zip(saes, folders, strict=True)
        if not is_finished(folder, sae, training)
    ]
    if not waiting:
        return
    configs, places = [sae for sae, _ in waiting], [folder for _, folder in waiting]
    device = best_device().type
    request = Request(configs, training, list(train_shards), list(val_shards), places, device)
    train(request, n_processes, n_threads)


def run_folder(checkpoints: str | Path, shards: Sequence[Path]) -> Path:
    """The folder under ``checkpoints`` that is named after the content of ``shards``.

    Checkpoints of other data are never continued.
    """
    data = "".join(open_shard(path).fingerprint for path in shards)
    return Path(checkpoints) / hashlib.sha256(data.encode()).hexdigest()[:12]
