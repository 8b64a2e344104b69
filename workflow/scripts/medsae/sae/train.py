"""Training from shards on disk to a folder of results, again and again if killed."""

import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from medsae.io import UserError, atomic_path, progress, write_json
from medsae.sae import parallel, sharding
from medsae.sae.architectures import build_sae
from medsae.sae.checkpoint import (
    BEST_NAME,
    LATEST_NAME,
    latest_state,
    remove_old_states,
    remove_stale_temporaries,
    save_checkpoint,
    save_state,
)
from medsae.sae.config import CONFIG_NAME, SAEConfig, TrainConfig, load_config, save_config
from medsae.sae.curves import EventLog
from medsae.sae.initialize import SAMPLE_ROWS, initialize
from medsae.sae.metrics import peak_memory_mb
from medsae.device import fast_float32_products
from medsae.sae.trainer import Trainer
from medsae.sae.latents import RAREST, summary_of, write_latents
from medsae.sae.validate import set_thresholds, validate
from medsae.store import ActivationStore

logger = logging.getLogger("medsae.sae")

METRICS_NAME = "train_metrics.parquet"
LATENTS_NAME = "latents.parquet"
META_NAME = "best_meta.json"


@dataclass(frozen=True)
class TrainResult:
    """Where a finished run is and how good its best weights are on the validation rows."""

    folder: Path
    step: int
    n_tokens: int
    val_nmse: float
    val_fvu: float
    val_l0: float
    dead_fraction: float


@dataclass
class _Run:
    """One SAE of a pass over the data, and its files."""

    trainer: Trainer
    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    since_best: int = 0
    events: EventLog | None = None

    @property
    def finished(self) -> bool:
        train = self.trainer.train
        stopped = train.patience is not None and self.since_best >= train.patience
        return stopped or self.trainer.step_number >= train.n_steps


def train_sae(
    sae_config: SAEConfig,
    train_config: TrainConfig,
    train_shards: list[Path],
    val_shards: list[Path],
    checkpoint_dir: Path,
    device: str | torch.device = "cpu",
    shard_latents: bool | None = None,
) -> TrainResult:
    """Train one SAE; see ``train_saes``."""
    (result,) = train_saes(
        [sae_config], train_config, train_shards, val_shards, [checkpoint_dir], device,
        shard_latents,
    )  # fmt: skip
    return result


def train_saes(
    sae_configs: list[SAEConfig],
    train_config: TrainConfig,
    train_shards: list[Path],
    val_shards: list[Path],
    checkpoint_dirs: list[Path],
    device: str | torch.device = "cpu",
    shard_latents: bool | None = None,
) -> list[TrainResult]:
    """Train several SAEs on the same batches, so that the data are read once.

    Each folder receives ``best.safetensors`` and ``latest.safetensors`` (for ``load_sae``),
    ``cfg.json``, ``best_meta.json``, ``train_metrics.parquet``, ``latents.parquet``, and
    the last training states ``step_*.safetensors``. A run that was killed goes on from its
    newest state and ends with the same weights, on CPU to the bit, on CUDA up to the order of
    atomic sums. Raises ``UserError`` if a folder holds a run with another configuration.

    Started by torchrun in several processes (``medsae.sae.launch``), they share the work: the
    batches (``medsae.sae.parallel``) or, with ``shard_latents``, the latents
    (``medsae.sae.sharding``); None shares the latents if an SAE is too large for one process.
    Files have one layout whatever the number of processes, and another number can go on from
    them; weights agree up to the order of float32 sums.
    """
    device = parallel.join(torch.device(device))
    train_store, val_store = ActivationStore(train_shards), ActivationStore(val_shards)
    if train_store.n_rows == 0 or val_store.n_rows == 0:
        raise UserError("the training and the validation shards must each hold at least one row.")
    if shard_latents is None:
        n_latents = sum(config.n_latents for config in sae_configs)
        ema = train_config.ema is not None
        shard_latents = sharding.is_needed(n_latents, train_store.n_columns, ema, device)
    with fast_float32_products(), sharding.latents_sharded(shard_latents):
        n_slices = parallel.batch_slice()[1]
        if train_config.batch_size % n_slices:
            raise UserError(
                f"TrainConfig: batch_size {train_config.batch_size} must be a multiple of the "
                f"{n_slices} processes."
            )
        runs = [
            _start(config, train_config, train_store, Path(folder), device)
            for config, folder in zip(sae_configs, checkpoint_dirs, strict=True)
        ]
        _loop(runs, train_config, train_store, val_store, device)
        return [_finish(run) for run in runs]


def is_finished(folder: Path, sae: SAEConfig, train: TrainConfig) -> bool:
    """Whether ``folder`` holds all that ``train_saes`` leaves there of this very run."""
    names = (BEST_NAME, LATEST_NAME, META_NAME, LATENTS_NAME, METRICS_NAME, CONFIG_NAME)
    if not all((folder / name).exists() for name in names):
        return False
    saved, saved_train = load_config(folder / CONFIG_NAME)
    same_training = saved_train is not None and saved_train.defining() == train.defining()
    return same_training and saved.to_dict() == sae.to_dict()


def _start(
    config: SAEConfig,
    train: TrainConfig,
    store: ActivationStore,
    folder: Path,
    device: torch.device,
) -> _Run:
    model = build_sae(config, store.n_columns).to(device)
    if train.k_start is not None and not model.anneals_k:
        raise UserError(
            f"TrainConfig: k_start is for SAEs with one k, not for '{config.architecture}'; "
            "leave it out."
        )
    if parallel.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(folder)
        remove_old_states(folder, train.keep_last)
    parallel.wait()
    saved = latest_state(folder, model)
    if saved is None:
        seed = train.seed if config.seed is None else config.seed
        initialize(model, _sample(store, train).to(device), seed)
        if parallel.shards_batches():
            parallel.from_first(model.state_dict().values())
        if parallel.rank() == 0:
            save_config(folder, config, train)
        return _Run(Trainer(model, train), folder, events=EventLog(folder, 0))
    tensors, note = saved
    saved_config, saved_train = note["configs"]
    known = TrainConfig.from_dict(saved_train)
    saved_config = SAEConfig.from_dict(saved_config).to_dict()
    if saved_config != config.to_dict() or known.defining() != train.defining():
        raise UserError(
            f"{folder}: holds a run with another configuration; give this one its own folder."
        )
    if known != train and parallel.rank() == 0:
        save_config(folder, config, train)
    run = _Run(Trainer(model, train), folder, note["rows"], note["best"], note["since_best"])
    run.trainer.restore(tensors, note["trainer"])
    run.events = EventLog(folder, run.trainer.step_number + 1)
    logger.info("%s: going on from step %d", folder, run.trainer.step_number)
    return run


def _sample(store: ActivationStore, train: TrainConfig) -> Tensor:
    """The first rows of the shuffled stream [n, d], n ≤ 32,768."""
    n = min(SAMPLE_ROWS, store.n_rows)
    stream = store.shuffled(n, train.seed, train.buffer_rows, n_threads=train.reader_threads)
    sample = next(stream)
    stream.close()
    return sample


def _loop(
    runs: list[_Run],
    train: TrainConfig,
    store: ActivationStore,
    val_store: ActivationStore,
    device: torch.device,
) -> None:
    active = [run for run in runs if not run.finished]
    if not active:
        return
    begin = min(run.trainer.step_number for run in active)
    stream = store.shuffled(
        train.batch_size, train.seed, train.buffer_rows, begin * train.batch_size,
        train.reader_threads, *parallel.batch_slice(),
    )  # fmt: skip
    clock, timed_from = time.monotonic(), begin
    steps = range(begin, train.n_steps)
    for step in progress(steps, "SAE training") if parallel.rank() == 0 else steps:
        raw = next(stream)
        # a run whose checkpoint is newer waits, and has nothing to record
        stepping = [run for run in active if run.trainer.step_number == step]
        for run in stepping:
            run.trainer.step(run.trainer.model.normalize(raw)[0])
        done = step + 1
        if not _is_due(train, done):
            continue
        rate = (done - timed_from) * train.batch_size / max(time.monotonic() - clock, 1e-9)
        for run in stepping:
            _record(run, val_store, rate, device)
        active = [run for run in active if not run.finished]
        if not active:
            break
        clock, timed_from = time.monotonic(), done
    stream.close()


def _is_due(train: TrainConfig, done: int) -> bool:
    every = (train.log_every, train.validate_every, train.checkpoint_every)
    return done == train.n_steps or any(done % n == 0 for n in every)


def _record(run: _Run, val_store: ActivationStore, rate: float, device: torch.device) -> None:
    """Add a row of metrics; validate and save where that is due."""
    train, done = run.trainer.train, run.trainer.step_number
    row: dict[str, Any] = run.trainer.take_window()
    if not math.isfinite(row["loss"]):
        raise UserError(
            f"{run.folder}: the loss is not finite by step {done}; lower the learning rate."
        )
    if done % train.validate_every == 0 or done == train.n_steps:
        row |= _validate(run, val_store)
    row |= {"tokens_per_s": rate, "peak_memory_mb": peak_memory_mb(device)}
    run.rows.append(row)
    if parallel.rank() == 0:
        if run.events is not None:
            run.events.add(row)
        logger.info("%s: step %d, FVU %.4f, %.0f tokens/s", run.folder, done, row["fvu"], rate)
    if done % train.checkpoint_every == 0 or run.finished:
        tensors, trainer_note = run.trainer.state()
        if parallel.rank() > 0:
            return
        note = {
            "configs": [run.trainer.sae.to_dict(), train.to_dict()],
            "trainer": trainer_note,
            "rows": run.rows,
            "best": run.best,
            "since_best": run.since_best,
        }
        save_state(run.folder, done, tensors, note, train.keep_last)


def _validate(run: _Run, val_store: ActivationStore) -> dict[str, float | None]:
    """Validation metrics; if they are the best so far, the weights are kept and described."""
    trainer = run.trainer
    summary: dict[str, float | None] = {}
    with trainer.averaged() as model:
        set_thresholds(model, val_store, trainer.train.validation_rows)
        found = validate(model, val_store, trainer.train.validation_rows)
        quality = found.quality
        if run.best is not None and quality.nmse >= run.best["val_nmse"]:
            run.since_best += 1
        else:
            run.since_best = 0
            run.best = {
                "step": trainer.step_number,
                "n_tokens": trainer.step_number * trainer.train.batch_size,
                "val_nmse": quality.nmse,
                "val_fvu": quality.fvu,
                "val_l0": quality.l0,
                "dead_fraction": found.dead_fraction,
                "path": BEST_NAME,
            }
            save_checkpoint(run.folder / BEST_NAME, model)
            latents = write_latents(run.folder / LATENTS_NAME, model, found)
            if latents is not None:
                summary = summary_of(latents)
                if run.events is not None:
                    log = (latents["frequency"] + RAREST).log10().to_torch()
                    run.events.add_histogram("log10_frequency", log, trainer.step_number)
                write_json(run.folder / META_NAME, run.best)
    return {
        "val_fvu": quality.fvu,
        "val_nmse": quality.nmse,
        "val_l0": quality.l0,
        **summary,
    }


def _finish(run: _Run) -> TrainResult:
    """Write what is there once at the end."""
    with run.trainer.averaged() as model:
        save_checkpoint(run.folder / LATEST_NAME, model)
    if parallel.rank() == 0:
        with atomic_path(run.folder / METRICS_NAME) as temporary:
            pl.from_dicts(run.rows, infer_schema_length=None).write_parquet(temporary)
    parallel.wait()
    assert run.best is not None, "the last step validates"
    best = {key: value for key, value in run.best.items() if key != "path"}
    return TrainResult(folder=run.folder, **best)
