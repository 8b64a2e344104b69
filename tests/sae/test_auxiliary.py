import pytest
import torch
from torch.nn import Parameter

from medsae.sae import SAEConfig, TrainConfig, build_sae
from medsae.sae.auxiliary import auxiliary_loss
from medsae.sae.initialize import initialize
from medsae.sae.trainer import Trainer

WIDTH = 24


def half_dead(planted, coefficient, architecture="topk", **options):
    """An SAE as wide as the atoms are many, half of whose latents start far from firing."""
    config = SAEConfig(architecture, 48, 3, 12, coefficient, normalization="none", options=options)
    model = build_sae(config, WIDTH)
    initialize(model, planted[0](4000, 1), seed=0)
    with torch.no_grad():
        model.b_enc[24:] -= 3
    return model


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("topk", {}),
        ("batch_topk", {}),
        ("matryoshka", {"prefixes": [24, 48]}),
        ("matryoshka_levels", {"sizes": [24, 48], "level_k": [2, 3]}),
    ],
)
def test_the_auxiliary_loss_revives_latents_that_stay_dead_without_it(
    planted, architecture, options
):
    data = planted[0](256 * 400, 2).split(256)
    revived = {}
    for coefficient in (0.0, 1 / 32):
        model = half_dead(planted, coefficient, architecture, **options)
        train = TrainConfig(
            n_tokens=256 * 400, batch_size=256, learning_rate=1e-2, dead_after_tokens=2000
        )
        trainer = Trainer(model, train)
        for batch in data:
            trainer.step(batch)
        revived[coefficient] = 1 - float(trainer.dead[24:].float().mean())
    assert revived[0.0] == 0
    assert revived[1 / 32] > 0.7


@pytest.mark.parametrize("k_aux", [3, 9])  # some of the dead latents, and all of them
@pytest.mark.parametrize("n_dead", [9])
def test_it_is_the_normalised_error_of_the_residual_with_gradients_to_all_it_uses(
    planted, k_aux, n_dead
):
    model = half_dead(planted, 1.0).double()
    x = planted[0](40, 3).double()
    dead = torch.arange(48 - n_dead, 48)
    error = (x * -0.1).requires_grad_()
    auxiliary_loss(model, x, error, dead, k_aux).backward()
    assert error.grad is None  # the living are not asked to help the dead

    copies = {n: Parameter(p.detach().clone()) for n, p in model.named_parameters()}
    u = (x - copies["b_pre"]) @ copies["W_enc"][dead].T + copies["b_enc"][dead]
    kept = u.topk(k_aux, dim=1)
    z = torch.zeros_like(u).scatter(1, kept.indices, kept.values)
    e = -error.detach()
    loss = (z @ copies["W_dec"][dead] - e).square().sum() / (e - e.mean(0)).square().sum()
    loss.backward()
    torch.testing.assert_close(auxiliary_loss(model, x, error, dead, k_aux), loss)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, copies[name].grad, msg=name)


def test_a_perfect_reconstruction_has_no_auxiliary_loss(planted):
    model = half_dead(planted, 1.0)
    x = planted[0](10, 3)
    loss = auxiliary_loss(model, x, 0 * x, torch.arange(24, 48), 12)
    assert loss.item() == 0.0
