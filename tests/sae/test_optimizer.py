import sys

import pytest
import torch
from torch.nn import Parameter

from medsae.io import UserError
from medsae.sae import TrainConfig
from medsae.sae.optimizer import build_optimizer


class OnCuda(Parameter):
    """A parameter that says it is on a GPU, for what is checked before anything is computed."""

    is_cuda = True


def test_8_bit_adam_without_a_gpu_is_refused():
    with pytest.raises(UserError, match="adam8bit needs a CUDA device; choose adam"):
        build_optimizer([Parameter(torch.zeros(3))], TrainConfig(optimizer="adam8bit"), 1e-3)


def test_8_bit_adam_without_its_library_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(UserError, match="needs the package bitsandbytes"):
        build_optimizer([OnCuda(torch.zeros(3))], TrainConfig(optimizer="adam8bit"), 1e-3)


def test_8_bit_adam_gets_the_configured_values(monkeypatch):
    made = {}

    class Adam8bit:
        def __init__(self, parameters, **values):
            made.update(values)

    library = type(sys)("bitsandbytes.optim")
    library.Adam8bit = Adam8bit
    monkeypatch.setitem(sys.modules, "bitsandbytes", type(sys)("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", library)
    config = TrainConfig(optimizer="adam8bit", beta1=0.8, weight_decay=0.1)
    build_optimizer([OnCuda(torch.zeros(3))], config, 1e-3)
    expected = {"lr": 1e-3, "betas": (0.8, 0.999), "eps": 6.25e-10, "weight_decay": 0.1}
    assert made == expected


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.Adafactor])
def test_torchs_optimisers_get_the_configured_values(kind):
    config = TrainConfig(optimizer=kind.__name__.lower(), beta1=0.8, weight_decay=0.1)
    optimizer = build_optimizer([Parameter(torch.zeros(3))], config, 1e-3)
    assert type(optimizer) is kind
    expected = {"lr": 1e-3, "weight_decay": 0.1}
    if kind is not torch.optim.Adafactor:  # which has no betas, and another epsilon
        expected |= {"betas": (0.8, 0.999), "eps": 6.25e-10}
    (group,) = optimizer.param_groups
    assert {name: group[name] for name in expected} == expected


@pytest.mark.parametrize("name", ["adam", "adamw", "adafactor"])
def test_every_optimiser_lowers_a_loss(name):
    parameter = Parameter(torch.ones(4, 3))
    optimizer = build_optimizer([parameter], TrainConfig(optimizer=name), 0.05)
    for _ in range(40):
        optimizer.zero_grad()
        parameter.square().sum().backward()
        optimizer.step()
    assert parameter.square().sum() < 6
