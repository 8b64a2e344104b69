import torch

from medsae.sae import SAEConfig, TrainConfig, build_sae
from medsae.sae.initialize import initialize
from medsae.sae.resample import resample
from medsae.sae.trainer import Trainer


def trainer_with_dead_latents(planted, **changes):
    model = build_sae(SAEConfig("relu", n_latents=48, k=3, normalization="none"), 24)
    initialize(model, planted[0](4000, 1), seed=0)
    with torch.no_grad():
        model.b_enc[24:] -= 50
    train = TrainConfig(
        n_tokens=256 * 200, batch_size=256, learning_rate=3e-3, dead_after_tokens=2000, **changes
    )
    return Trainer(model, train)


def test_resampled_latents_fire_again(planted):
    dead = {}
    for every in (None, 20):
        trainer = trainer_with_dead_latents(planted, resample_every=every)
        for batch in planted[0](256 * 100, 2).split(256):
            trainer.step(batch)
        dead[every] = float(trainer.dead.float().mean())
    assert dead[None] >= 0.5 and dead[20] < 0.1


def test_dead_latents_point_at_badly_reconstructed_inputs_and_forget_their_moments(planted):
    trainer = trainer_with_dead_latents(planted)
    x = planted[0](256, 2)
    for _ in range(3):
        trainer.step(x)
    model, optimizer = trainer.model, trainer.optimizer
    error = torch.zeros_like(x)
    error[7] = 1
    dead = torch.arange(24, 48)
    before = model.W_dec[:24].detach().clone()
    resample(model, optimizer, x, error, dead, seed=0)
    wanted = torch.nn.functional.normalize(x[7] - model.b_pre, dim=0)
    torch.testing.assert_close(model.W_dec[dead], wanted.expand(24, -1))
    assert torch.equal(model.W_dec[:24], before)
    for parameter in (model.W_enc, model.W_dec):
        moments = optimizer.state[parameter]["exp_avg"]
        assert (moments[dead] == 0).all() and (moments[:24] != 0).any()
