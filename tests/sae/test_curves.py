import sys
from types import ModuleType

import polars as pl
import torch

from medsae.sae import train_sae
from medsae.sae.curves import EventLog
from medsae.sae.train import LATENTS_NAME, METRICS_NAME


def test_every_number_of_a_row_becomes_an_event(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            written.append(("open", folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def add_histogram(self, name, values, step):
            written.append((name, values.tolist(), step))

        def flush(self):
            pass

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    log = EventLog(tmp_path, 7)
    log.add({"step": 9, "loss": 0.5, "val_fvu": None, "l0": 3})
    log.add_histogram("log10_frequency", torch.tensor([-2.0, -1.0]), 9)
    assert written[0] == ("open", str(tmp_path / "tensorboard"), 7)
    assert written[1:3] == [("loss", 0.5, 9), ("l0", 3, 9)]
    assert written[3:] == [("log10_frequency", [-2.0, -1.0], 9)]


def test_without_tensorboard_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    EventLog(tmp_path, 0).add({"step": 1, "loss": 0.5})
    assert list(tmp_path.iterdir()) == []


def test_metrics_are_a_table_of_numbers(shards, sae_config, train_config, tmp_path):
    train_sae(sae_config(), train_config(30), *shards, tmp_path / "run")
    metrics = pl.read_parquet(tmp_path / "run" / METRICS_NAME)
    assert all(dtype.is_numeric() for dtype in metrics.dtypes)
    assert {"loss_mse", "tokens_per_s", "peak_memory_mb"} <= set(metrics.columns)
    latents = pl.read_parquet(tmp_path / "run" / LATENTS_NAME)
    last = metrics.row(-1, named=True)
    assert last["frequency_p50"] == latents["frequency"].median()
    assert last["decoder_cosine_p90"] == latents["max_decoder_cosine"].quantile(0.9, "linear")
