import json

import polars as pl
import pytest
import torch

from medsae.device import has_fast_int8_products
from medsae.io import UserError
from medsae.sae import (
    SAEConfig,
    build_sae,
    candidates,
    load_config,
    load_sae,
    train_sae,
    train_saes,
)
from medsae.sae.checkpoint import save_state
from medsae.sae.initialize import geometric_median, initialize
from medsae.sae.latents import max_decoder_cosines
from medsae.sae.resample import resample
from medsae.sae.schedule import learning_rate
from medsae.sae.selection import Arithmetic
from medsae.sae.train import LATENTS_NAME, METRICS_NAME
from medsae.sae.trainer import Trainer
from medsae.store import ActivationStore

TIMING = ("tokens_per_s", "peak_memory_mb")
LEVELS = {"sizes": [32, 96], "level_k": [2, 3]}


def same_weights(one, two):
    mine, theirs = load_sae(one).state_dict(), load_sae(two).state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_planted_atoms_are_recovered(shards, sae_config, train_config, planted, tmp_path):
    rows, atoms = planted
    begin = build_sae(sae_config(), atoms.shape[1])
    initialize(begin, rows(1000, 1), train_config(1).seed)
    assert (atoms @ begin.W_dec.T).amax(1).mean() < 0.6  # training has them to find
    result = train_sae(sae_config(), train_config(700), *shards, tmp_path / "run")
    found = (atoms @ load_sae(tmp_path / "run").W_dec.T).amax(1)
    assert found.mean() > 0.95
    assert result.val_fvu < 0.09  # the noise, and atoms that nearly overlap
    assert result.val_l0 == pytest.approx(3.0, abs=0.01)


def test_a_run_leaves_its_results(shards, sae_config, train_config, tmp_path):
    folder = tmp_path / "run"
    result = train_sae(sae_config(), train_config(120), *shards, folder)
    meta = json.loads((folder / "best_meta.json").read_text())
    assert (meta["step"], meta["val_nmse"]) == (result.step, result.val_nmse)
    assert (folder / meta["path"]).exists() and (folder / "latest.safetensors").exists()
    assert load_config(folder / "cfg.json") == (sae_config(), train_config(120))
    metrics = pl.read_parquet(folder / METRICS_NAME)
    assert metrics["step"].to_list() == [25, 50, 75, 100, 120]
    assert metrics["val_fvu"].is_null().to_list() == [True, False, True, False, False]
    assert (metrics["l0"] == 3.0).all()
    assert metrics["loss"].to_list()[-1] < metrics["loss"][0]
    latents = pl.read_parquet(folder / LATENTS_NAME)
    assert latents["firings"].sum() == 3 * 1200 and latents["max_decoder_cosine"].max() <= 1.001


def test_validation_fvu_is_that_of_the_saved_model_on_raw_activations(
    shards, sae_config, train_config, tmp_path
):
    result = train_sae(sae_config(), train_config(120), *shards, tmp_path / "run")
    x = ActivationStore(shards[1]).read(0, 1200)
    error = (load_sae(tmp_path / "run").reconstruct(x) - x).double().square().sum()
    variance = (x - x.mean(0)).double().square().sum()
    assert result.val_fvu == pytest.approx(float(error / variance), rel=1e-4)
    assert result.val_nmse == pytest.approx(float(error / x.double().square().sum()), rel=1e-4)


def test_an_interrupted_run_of_several_threads_ends_with_the_same_bits(
    shards, sae_config, train_config, tmp_path, monkeypatch, set_threads
):
    set_threads(2)
    sae = sae_config(n_latents=640)
    train = train_config(12, n_tokens=12 * 1024, batch_size=1024, checkpoint_every=4)
    train_sae(sae, train, *shards, tmp_path / "whole")
    step, calls = Trainer.step, []

    def failing(self, x):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        step(self, x)

    monkeypatch.setattr(Trainer, "step", failing)
    with pytest.raises(KeyboardInterrupt):
        train_sae(sae, train, *shards, tmp_path / "broken")
    train_sae(sae, train, *shards, tmp_path / "broken")
    assert same_weights(
        tmp_path / "whole/latest.safetensors", tmp_path / "broken/latest.safetensors"
    )


@pytest.mark.parametrize("changes", [{}, {"ema": 0.98, "optimizer": "adafactor"}])
def test_an_interrupted_run_ends_with_the_same_bits(
    shards, sae_config, train_config, tmp_path, monkeypatch, changes
):
    sae = sae_config(normalization="dataset", k_aux=8)
    train = train_config(160, k_start=9, dead_after_tokens=2000, buffer_rows=3000, **changes)
    train_sae(sae, train, *shards, tmp_path / "whole")

    from medsae.sae.trainer import Trainer

    step, calls = Trainer.step, []

    def failing(self, x):
        calls.append(1)
        if len(calls) in (70, 150):
            raise KeyboardInterrupt
        step(self, x)

    monkeypatch.setattr(Trainer, "step", failing)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_sae(sae, train, *shards, tmp_path / "broken")
    train_sae(sae, train, *shards, tmp_path / "broken")
    assert len(calls) > 160
    for name in ("best.safetensors", "latest.safetensors"):
        assert same_weights(tmp_path / "whole" / name, tmp_path / "broken" / name)
    columns = ["step", "loss", "fvu", "l0", "dead_fraction", "k", "val_fvu"]
    whole, broken = (
        pl.read_parquet(tmp_path / run / METRICS_NAME).select(columns)
        for run in ("whole", "broken")
    )
    assert whole.equals(broken)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        *((name, {}) for name in ("topk", "batch_topk", "matryoshka")),
        ("matryoshka_levels", {"sizes": [320, 640], "level_k": [2, 3]}),
    ],
)
def test_so_does_one_that_resamples_and_takes_candidates_from_int8(
    shards, sae_config, train_config, tmp_path, monkeypatch, architecture, options
):
    sae = sae_config(architecture=architecture, n_latents=640, k_aux=8, options=options)
    train = train_config(
        24, n_tokens=24 * 1024, batch_size=1024, dead_after_tokens=3000, resample_every=5,
        checkpoint_every=4, log_every=3, validate_every=10, buffer_rows=3000, ema=0.9,
    )  # fmt: skip
    resampled, rounded, calls = [], [], []

    def step(self, x, step=Trainer.step):
        calls.append(1)
        if len(calls) in (24 + 7, 24 + 19):
            raise KeyboardInterrupt
        step(self, x)

    def resampling(*arguments):
        resampled.append(arguments[4].numel())
        resample(*arguments)

    def rounding(*arguments, batch=candidates.RoundedBatch):
        rounded.append(1)
        return batch(*arguments)

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr("medsae.sae.trainer.resample", resampling)
    monkeypatch.setattr(candidates, "RoundedBatch", rounding)
    train_sae(sae, train, *shards, tmp_path / "whole")
    assert sum(resampled) > 0 and bool(rounded) == has_fast_int8_products()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_sae(sae, train, *shards, tmp_path / "broken")
    train_sae(sae, train, *shards, tmp_path / "broken")
    for name in ("best.safetensors", "latest.safetensors"):
        assert same_weights(tmp_path / "whole" / name, tmp_path / "broken" / name)


def test_a_finished_run_is_not_trained_again(
    shards, sae_config, train_config, tmp_path, monkeypatch
):
    first = train_sae(sae_config(), train_config(60), *shards, tmp_path / "run")
    monkeypatch.setattr("medsae.sae.trainer.Trainer.step", lambda *_: 1 / 0)
    assert train_sae(sae_config(), train_config(60), *shards, tmp_path / "run") == first


def test_a_folder_with_another_run_is_refused(shards, sae_config, train_config, tmp_path):
    train_sae(sae_config(), train_config(10), *shards, tmp_path / "run")
    with pytest.raises(UserError, match="another configuration"):
        train_sae(sae_config(k=4), train_config(10), *shards, tmp_path / "run")


def test_a_run_goes_on_with_other_steps_between_records_and_states(
    shards, sae_config, train_config, tmp_path
):
    def train(**steps):
        return train_config(60, validate_every=20, **steps)

    train_sae(sae_config(), train(log_every=10, checkpoint_every=20), *shards, tmp_path / "whole")
    folder = tmp_path / "changed"
    train_sae(sae_config(), train(log_every=10, checkpoint_every=20), *shards, folder)
    for path in (*folder.glob("step_*60*"), folder / "latest.safetensors"):
        path.unlink()
    other = train(log_every=30, checkpoint_every=15, keep_last=1, reader_threads=2)
    train_sae(sae_config(), other, *shards, folder)
    assert json.loads((folder / "cfg.json").read_text())["train"] == other.to_dict()
    for name in ("best.safetensors", "latest.safetensors"):
        assert same_weights(tmp_path / "whole" / name, folder / name)


def test_only_the_last_states_are_kept(shards, sae_config, train_config, tmp_path):
    folder = tmp_path / "run"
    train_sae(sae_config(), train_config(60, checkpoint_every=10), *shards, folder)
    assert [p.name for p in sorted(folder.glob("step_*"))] == [
        "step_0000000050.safetensors",
        "step_0000000060.safetensors",
    ]


def test_training_stops_early_when_validation_no_longer_improves(
    shards, sae_config, train_config, tmp_path
):
    train = train_config(400, learning_rate=0.5, validate_every=10, patience=2, clip=None)
    train_sae(sae_config(), train, *shards, tmp_path / "run")
    metrics = pl.read_parquet(tmp_path / "run" / METRICS_NAME)
    assert metrics["step"].max() < 400
    best = json.loads((tmp_path / "run" / "best_meta.json").read_text())
    assert best["val_nmse"] == metrics["val_nmse"].min() < metrics["val_nmse"].drop_nulls()[-1]


@pytest.mark.parametrize(
    ("sae", "train"),
    [
        ({}, {}),
        ({}, {"optimizer": "adafactor"}),
        ({"k": 1, "aux_coefficient": 0}, {"dead_after_tokens": 256, "resample_every": 8}),
        ({"architecture": "batch_topk"}, {}),
        ({"architecture": "matryoshka"}, {}),
        ({"architecture": "matryoshka_levels", "options": LEVELS}, {}),
        ({"architecture": "relu"}, {}),
        ({"architecture": "gated"}, {}),
        ({"architecture": "jumprelu"}, {}),
    ],
)
def test_decoder_rows_keep_unit_length_for_a_whole_run(
    shards, sae_config, train_config, tmp_path, monkeypatch, sae, train
):
    from medsae.sae.trainer import Trainer

    step, worst = Trainer.step, []

    def watched(self, x):
        step(self, x)
        worst.append(float((self.model.W_dec.detach().norm(dim=1) - 1).abs().max()))

    monkeypatch.setattr(Trainer, "step", watched)
    train_sae(sae_config(**sae), train_config(100, **train), *shards, tmp_path / "run")
    assert len(worst) == 100 and max(worst) < 1e-5


def test_saes_trained_together_equal_those_trained_apart(
    shards, sae_config, train_config, tmp_path
):
    configs = [sae_config(), sae_config(n_latents=64, k=2, normalization="token")]
    folders = [tmp_path / "one", tmp_path / "two"]
    train_saes(configs, train_config(60), *shards, folders)
    for config, folder in zip(configs, folders, strict=True):
        alone = tmp_path / f"{folder.name}-alone"
        train_sae(config, train_config(60), *shards, alone)
        assert same_weights(folder, alone)


def test_saes_of_which_one_saved_later_than_the_other_end_with_the_same_bits(
    shards, sae_config, train_config, tmp_path, monkeypatch
):
    configs = [sae_config(), sae_config(architecture="batch_topk", n_latents=64, k=2)]
    train = train_config(60, checkpoint_every=20, validate_every=30, log_every=7)
    whole, broken = ([tmp_path / run / name for name in "ab"] for run in ("whole", "broken"))
    train_saes(configs, train, *shards, whole)

    calls = []

    def failing(*arguments):
        save_state(*arguments)
        calls.append(1)
        if len(calls) == 3:  # the first at step 40, before the second is
            raise KeyboardInterrupt

    monkeypatch.setattr("medsae.sae.train.save_state", failing)
    with pytest.raises(KeyboardInterrupt):
        train_saes(configs, train, *shards, broken)
    newest = [max(path.stem for path in folder.glob("step_*")) for folder in broken]
    assert newest == ["step_0000000040", "step_0000000020"]
    train_saes(configs, train, *shards, broken)
    for one, two in zip(whole, broken, strict=True):
        assert same_weights(one / "best.safetensors", two / "best.safetensors")
        assert same_weights(one / "latest.safetensors", two / "latest.safetensors")
        metrics = (pl.read_parquet(folder / METRICS_NAME).drop(TIMING) for folder in (one, two))
        assert next(metrics).equals(next(metrics))


def test_damage_to_a_state_is_named(shards, sae_config, train_config, tmp_path):
    folder = tmp_path / "run"
    train_sae(sae_config(), train_config(20), *shards, folder)
    (state,) = folder.glob("step_*")
    whole = state.read_bytes()
    for damaged in (whole[:-100], whole[:-100] + b"\x01" + whole[-99:]):
        state.write_bytes(damaged)
        with pytest.raises(UserError, match=r"step_0000000020\.safetensors"):
            train_sae(sae_config(), train_config(20), *shards, folder)


def test_a_nan_in_a_shard_stops_training_with_its_row(shards, sae_config, train_config, tmp_path):
    from safetensors.torch import save_file

    bad = torch.ones(500, 24)
    bad[321, 5] = float("nan")
    save_file({"activations": bad}, tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match=r"bad\.safetensors: row 321"):
        train_sae(
            sae_config(),
            train_config(20),
            [*shards[0], tmp_path / "bad.safetensors"],
            shards[1],
            tmp_path / "run",
        )


@pytest.mark.parametrize("architecture", ["batch_topk", "matryoshka"])
def test_a_restored_run_looks_for_its_threshold_where_the_killed_one_would(
    planted, train_config, architecture
):
    rows, _ = planted
    trainers = []
    for _ in range(2):
        model = build_sae(SAEConfig(architecture, 48, 3, normalization="none"), 24)
        initialize(model, rows(500, 0), 0)
        trainers.append(Trainer(model, train_config(10)))
    killed, restored = trainers
    for step in range(3):
        killed.step(rows(256, step))
    tensors, note = killed.state()
    restored.restore(tensors, json.loads(json.dumps(note)))
    assert restored.model.smallest == killed.model.smallest != [None]


@pytest.mark.skipif(not has_fast_int8_products(), reason="this CPU has no units for int8")
@pytest.mark.parametrize("architecture", ["topk", "batch_topk", "matryoshka"])
def test_candidates_from_int8_train_the_same_weights(
    planted, train_config, architecture, monkeypatch
):
    monkeypatch.setattr(candidates, "FEWEST_TOKENS", 1)
    rows, _ = planted
    trained = {}
    for arithmetic in (Arithmetic.OWN, Arithmetic.CANDIDATES):
        model = build_sae(SAEConfig(architecture, 640, 4, normalization="none"), 24)
        initialize(model, rows(500, 0), 0)
        trainer = Trainer(model, train_config(10))
        assert model.arithmetic == Arithmetic.CANDIDATES
        model.arithmetic = arithmetic
        for step in range(10):
            trainer.step(rows(256, step))
        trained[arithmetic] = model.W_dec.detach()
    exact, found = trained.values()
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-4)
    assert not torch.equal(found, exact)  # they did go two ways


@pytest.mark.skipif(not has_fast_int8_products(), reason="this CPU has no units for int8")
@pytest.mark.parametrize("architecture", ["topk", "batch_topk"])
def test_int8_trains_nearly_as_well(planted, train_config, architecture, monkeypatch):
    monkeypatch.setattr(candidates, "FEWEST_TOKENS", 1)
    rows, _ = planted
    errors = {}
    for compute in ("float32", "bfloat16"):
        model = build_sae(SAEConfig(architecture, 640, 4, normalization="none"), 24)
        initialize(model, rows(500, 0), 0)
        trainer = Trainer(model, train_config(60, compute=compute))
        for step in range(60):
            trainer.step(rows(256, step))
        errors[compute] = trainer.take_window()["fvu"]
    assert model.arithmetic == Arithmetic.INT8
    assert errors["bfloat16"] < 1.05 * errors["float32"] < 0.9


def test_a_decoder_gradient_does_not_lengthen_its_rows(planted, train_config):
    model = build_sae(SAEConfig("topk", 96, 3, normalization="none"), 24)
    initialize(model, planted[0](500, 0), 0)
    trainer, before = Trainer(model, train_config(10)), model.W_dec.detach().clone()
    trainer.step(planted[0](256, 1))
    first_moment = trainer.optimizer.state[model.W_dec]["exp_avg"]
    along = (first_moment * before).sum(1)
    assert first_moment.norm(dim=1).max() > 1e-4
    assert along.abs().max() < 1e-6


def test_averaged_decoder_rows_have_unit_length_too(shards, sae_config, train_config, tmp_path):
    train_sae(sae_config(), train_config(60, ema=0.9), *shards, tmp_path / "run")
    for name in ("best.safetensors", "latest.safetensors"):
        lengths = load_sae(tmp_path / "run" / name).W_dec.norm(dim=1)
        torch.testing.assert_close(lengths, torch.ones(96), rtol=0, atol=1e-5)


def test_the_schedule_reaches_the_optimiser(planted, train_config):
    train = train_config(20, warmup=0.5)
    model = build_sae(SAEConfig("topk", 96, 3, normalization="none"), 24)
    initialize(model, planted[0](500, 0), 0)
    trainer = Trainer(model, train)
    for step in range(12):
        trainer.step(planted[0](256, step))
        (group,) = trainer.optimizer.param_groups
        assert group["lr"] == learning_rate(model.config, train, step)


def test_training_begins_at_the_median_with_the_encoder_along_the_decoder(planted):
    rows = planted[0](500, 0)
    model = build_sae(SAEConfig("topk", 96, 3, normalization="none"), 24)
    initialize(model, rows, 0)
    torch.testing.assert_close(model.b_pre.detach(), geometric_median(rows).float())
    directions = torch.nn.functional.normalize(model.W_enc.detach(), dim=1)
    torch.testing.assert_close(directions, model.W_dec.detach())


def test_adafactor_too_sees_clipped_gradients(planted, train_config):
    model = build_sae(SAEConfig("topk", 96, 3, normalization="none"), 24)
    initialize(model, planted[0](500, 0), 0)
    trainer = Trainer(model, train_config(10, clip=1e-3, optimizer="adafactor"))
    trainer.step(planted[0](256, 1))
    assert trainer.take_window()["gradient_norm"] > 2e-3
    left = torch.cat([p.grad.flatten() for p in trainer.parameters])
    assert float(left.norm()) == pytest.approx(1e-3, rel=1e-4)


def test_cosines_are_with_the_nearest_other_row():
    weight = torch.randn(2500, 6, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(weight, dim=1)
    expected = (unit @ unit.T).fill_diagonal_(-1).amax(1)
    torch.testing.assert_close(max_decoder_cosines(weight), expected)


def test_the_optimiser_sees_gradients_no_longer_than_the_limit(planted, train_config):
    rows, _ = planted
    model = build_sae(SAEConfig("topk", 96, 3, normalization="none"), 24)
    initialize(model, rows(500, 0), 0)
    trainer = Trainer(model, train_config(10))
    before, limits = torch.zeros(()), (1e-3, 1e3, None, 1e-4)
    for step, limit in enumerate(limits):
        trainer.train = train_config(10, clip=limit)
        trainer.step(rows(256, step))
        length = trainer.take_window()["gradient_norm"]
        assert 1e-3 < length < 1e3
        moments = [trainer.optimizer.state[p]["exp_avg"].flatten() for p in trainer.parameters]
        mean = torch.cat(moments).double()
        seen = float(torch.linalg.vector_norm((mean - 0.9 * before) / 0.1))
        assert seen == pytest.approx(min(length, limit or length), rel=1e-3)
        before = mean


def test_bfloat16_compute_keeps_float32_weights_and_nearly_the_quality(
    shards, sae_config, train_config, tmp_path
):
    fvu = {}
    for compute in ("float32", "bfloat16"):
        folder = tmp_path / compute
        fvu[compute] = train_sae(
            sae_config(), train_config(300, compute=compute), *shards, folder
        ).val_fvu
        assert {value.dtype for value in load_sae(folder).state_dict().values()} == {torch.float32}
    assert fvu["bfloat16"] != fvu["float32"]
    assert fvu["bfloat16"] < 1.1 * fvu["float32"]
