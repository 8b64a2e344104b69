"""Learning rate, k and running means over the steps of a run."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medsae.io import UserError
from medsae.sae import SAEConfig, TrainConfig, build_sae, train_sae
from medsae.sae.initialize import initialize
from medsae.sae.schedule import active_k, averaging_weight, learning_rate
from medsae.sae.trainer import Trainer

SAE = SAEConfig(n_latents=2**16, k=8)


def config(**changes):
    return TrainConfig(**{"n_tokens": 1000, "batch_size": 10, "warmup": 0.1, **changes})


def rates(train):
    return [learning_rate(SAE, train, step) for step in range(train.n_steps)]


def test_the_rate_rises_stays_and_falls():
    found = rates(config())
    assert found[0] == pytest.approx(1e-4 / 10)  # 2e-4 / sqrt(2^16 / 2^14)
    assert found[10:80] == pytest.approx([1e-4] * 70)
    assert found[90] == pytest.approx(0.5e-4) and found[-1] == pytest.approx(1e-4 / 20)
    assert found[:10] == sorted(found[:10]) and found[80:] == sorted(found[80:], reverse=True)


def test_the_rate_may_fall_as_a_cosine_or_not_at_all():
    cosine = rates(config(decay="cosine", decay_share=0.5))
    assert cosine[75] == pytest.approx(1e-4 * (0.01 + 0.99 / 2))
    assert 1e-6 < cosine[-1] < 2e-6
    assert rates(config(decay="none"))[10:] == pytest.approx([1e-4] * 90)
    assert set(rates(config(warmup=0, decay_share=0))) == {1e-4}


@given(st.integers(8, 90), st.floats(0, 1), st.integers(1, 300))
def test_k_falls_from_its_start_to_its_end_and_never_rises(k_start, share, n_steps):
    train = config(n_tokens=10 * n_steps, k_start=k_start, k_anneal=share)
    found = [active_k(SAE, train, step) for step in range(n_steps)]
    assert found == sorted(found, reverse=True)
    assert all(8 <= k <= k_start for k in found)
    if share * n_steps > 0:
        assert found[0] == k_start
    if share < 1 and round(share * n_steps) < n_steps - 1:
        assert found[-1] == 8


@pytest.mark.parametrize("architecture", ["topk", "batch_topk", "matryoshka"])
def test_k_is_annealed_in_training(planted, architecture):
    model = build_sae(SAEConfig(architecture, 96, 3, normalization="none"), 24)
    initialize(model, planted[0](1000, 1), seed=0)
    trainer = Trainer(model, config(n_tokens=64 * 20, batch_size=64, k_start=9, k_anneal=0.5))
    l0 = []
    for batch in planted[0](64 * 20, 2).split(64):
        trainer.step(batch)
        l0.append(trainer.take_window()["l0"])
    assert l0[0] == 9 and l0[10:] == [3] * 10 and l0 == sorted(l0, reverse=True)


@pytest.mark.parametrize("architecture", ["relu", "gated", "jumprelu", "matryoshka_levels"])
def test_annealing_where_there_is_no_single_k_is_refused(
    shards, sae_config, train_config, tmp_path, architecture
):
    options = {"sizes": [8, 96], "level_k": [2, 3]} if architecture == "matryoshka_levels" else {}
    sae = sae_config(architecture=architecture, options=options)
    with pytest.raises(UserError, match=f"k_start .*'{architecture}'"):
        train_sae(sae, train_config(10, k_start=9), *shards, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@given(st.floats(0, 0.9999), st.integers(0, 10**6))
def test_a_running_mean_begins_short(decay, step):
    weight = averaging_weight(decay, step)
    assert 1 - decay <= weight <= 1
    assert weight == pytest.approx(max(1 - decay, 19 / (20 + step)))


def test_averaged_weights_are_the_running_mean_and_leave_training_alone(planted):
    weights = []
    for ema in (None, 0.9):
        model = build_sae(SAEConfig(n_latents=96, k=3, normalization="none"), 24)
        initialize(model, planted[0](1000, 1), seed=0)
        trainer = Trainer(model, config(n_tokens=64 * 30, batch_size=64, ema=ema))
        expected = model.W_enc.detach().clone()
        for step, batch in enumerate(planted[0](64 * 30, 2).split(64)):
            trainer.step(batch)
            expected.lerp_(model.W_enc.detach(), averaging_weight(ema or 0.0, step))
        with trainer.averaged() as averaged:
            torch.testing.assert_close(averaged.W_enc.detach(), expected)
        weights.append(model.W_enc.detach().clone())
    assert torch.equal(*weights)
    assert not torch.allclose(expected, weights[1], atol=1e-5)
