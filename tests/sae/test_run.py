"""Training as the workflow's scripts start it."""

import polars as pl
import pytest

from medsae.config import together
from medsae.sae import TrainConfig
from medsae.sae.run import run_folder, train_and_publish, train_together

NAMES = ("best.safetensors", "latest.safetensors", "cfg.json", "best_meta.json")


def published(folder, sae, train, shards, **more):
    outputs = [str(folder / "out" / name) for name in NAMES]
    (folder / "out").mkdir(parents=True)
    train_and_publish(sae, train, *shards, folder / "checkpoints", outputs, **more)
    return [(folder / "out" / name).read_bytes() for name in NAMES]


def test_a_sweep_trained_together_publishes_what_each_would_alone(
    shards, sae_config, train_config, tmp_path, monkeypatch
):
    saes = [
        sae_config(seed=4),
        sae_config(seed=5),
        sae_config(architecture="relu", n_latents=64, options={"l1_coefficient": 0.01}),
    ]
    alone = [
        published(tmp_path / f"alone-{i}", sae, train_config(60), shards)
        for i, sae in enumerate(saes)
    ]
    assert alone[0] != alone[1]  # the seed of an SAE decides its first weights
    folders = [tmp_path / f"together-{i}" for i in range(3)]
    train_together(saes, train_config(60), *shards, [f / "checkpoints" for f in folders])
    monkeypatch.setattr("medsae.sae.trainer.Trainer.step", lambda *_: 1 / 0)  # found finished
    for sae, folder, expected in zip(saes, folders, alone, strict=True):
        assert published(folder, sae, train_config(60), shards) == expected


def test_the_data_are_read_once(shards, sae_config, train_config, tmp_path, monkeypatch):
    from medsae.store import ActivationStore

    opened, shuffled = [], ActivationStore.shuffled

    def counted(self, *arguments, **more):
        opened.append(arguments)
        return shuffled(self, *arguments, **more)

    monkeypatch.setattr(ActivationStore, "shuffled", counted)
    folders = [tmp_path / name for name in "abc"]
    train_together([sae_config(k=k) for k in (1, 2, 3)], train_config(10), *shards, folders)
    streams = [arguments for arguments in opened if arguments[0] == 256]  # not the samples
    assert len(streams) == 1
    metrics = [pl.read_parquet(next(f.glob("*/train_metrics.parquet"))) for f in folders]
    assert [table["l0"][-1] for table in metrics] == [1.0, 2.0, 3.0]


def test_other_data_have_another_folder(shards, tmp_path):
    train, val = shards
    assert run_folder(tmp_path, train) == run_folder(tmp_path, list(train))
    assert run_folder(tmp_path, train) != run_folder(tmp_path, val)


def test_a_job_killed_on_other_data_leaves_no_member_looking_trained(
    shards, sae_config, train_config, tmp_path, monkeypatch
):
    (first, other), val = shards
    saes, folders = [sae_config(k=1), sae_config(k=2)], [tmp_path / "1", tmp_path / "2"]

    def train(shard):
        train_together(saes, train_config(10), [shard], val, folders)

    def trained():
        return [path.parent for folder in folders for path in folder.glob(together.TRAINED)]

    train(first)
    assert trained() == [run_folder(folder, [first, *val]) for folder in folders]
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("medsae.sae.trainer.Trainer.step", lambda *_: 1 / 0)
        train(other)
    assert trained() == []
    train(other)
    assert trained() == [run_folder(folder, [other, *val]) for folder in folders]


@pytest.mark.slow
def test_processes_are_only_how_the_work_is_done(shards, sae_config, tmp_path):
    train = TrainConfig(n_tokens=256 * 20, batch_size=256, learning_rate=1e-3, validate_every=20)
    made = published(tmp_path / "two", sae_config(), train, shards, n_processes=2, n_threads=2)
    again = published(tmp_path / "again", sae_config(), train, shards, n_processes=2, n_threads=2)
    assert made == again
