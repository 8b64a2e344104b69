import resource
import sys
import time

import polars as pl
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medsae.sae import train_sae
from medsae.sae.curves import EventLog
from medsae.sae.initialize import initialize
from medsae.sae.train import LATENTS_NAME, METRICS_NAME
from medsae.sae.trainer import Trainer


def test_tensorboard_reads_what_the_table_of_metrics_says(
    shards, sae_config, train_config, tmp_path
):
    train_sae(sae_config(), train_config(60, log_every=20), *shards, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    metrics = pl.read_parquet(tmp_path / "run" / METRICS_NAME)
    names = [name for name in metrics.columns if name != "step" and metrics[name].count()]
    assert set(events.Tags()["scalars"]) == set(names)
    for name in names:
        told = metrics.select("step", name).drop_nulls()
        scalars = events.Scalars(name)
        assert [event.step for event in scalars] == told["step"].to_list()
        assert [event.value for event in scalars] == pytest.approx(told[name].to_list())
    frequency = pl.read_parquet(tmp_path / "run" / LATENTS_NAME)["frequency"]
    histogram = events.Histograms("log10_frequency")[-1].histogram_value
    assert histogram.num == len(frequency)
    assert histogram.max == pytest.approx(frequency.log(10).max())


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


def test_dead_latents_speed_and_memory_are_what_they_were(
    shards, sae_config, train_config, tmp_path, monkeypatch
):
    def half_dead(model, sample, seed):
        initialize(model, sample, seed)
        with torch.no_grad():
            model.b_enc[24:] -= 50

    def slow(self, x, step=Trainer.step):
        step(self, x)
        time.sleep(0.01)

    monkeypatch.setattr("medsae.sae.train.initialize", half_dead)
    monkeypatch.setattr(Trainer, "step", slow)
    sae = sae_config(n_latents=48, aux_coefficient=0)
    train = train_config(20, log_every=5, dead_after_tokens=2000)
    begin = time.monotonic()
    result = train_sae(sae, train, *shards, tmp_path / "run")
    took = time.monotonic() - begin
    metrics = pl.read_parquet(tmp_path / "run" / METRICS_NAME)
    # after 1,280 tokens none is told dead yet
    assert metrics["dead_fraction"].to_list() == [0, 0.5, 0.5, 0.5] and result.dead_fraction == 0.5
    assert 20 * 0.01 <= (5 * 256 / metrics["tokens_per_s"]).sum() <= took
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert metrics["peak_memory_mb"].is_between(100, 1.05 * most).all()  # torch alone takes 100
