"""Optimisers by name."""

from collections.abc import Iterable

import torch
from torch.nn import Parameter

from medsae.io import UserError
from medsae.sae import parallel
from medsae.sae.config import TrainConfig


def build_optimizer(
    parameters: Iterable[Parameter], config: TrainConfig, rate: float
) -> torch.optim.Optimizer:
    """The optimiser ``config`` names; raises ``UserError`` if its library is missing."""
    parameters = list(parameters)
    betas = (config.beta1, config.beta2)
    if config.optimizer in ("adafactor", "adam8bit") and parallel.shards_latents():
        raise UserError(
            f"TrainConfig: {config.optimizer} keeps statistics over many latents, which are shared "
            "by several processes here; choose adam."
        )
    if config.optimizer == "adafactor":
        return torch.optim.Adafactor(parameters, lr=rate, weight_decay=config.weight_decay)
    if config.optimizer == "adam8bit":
        return _adam8bit(parameters, config, rate)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(
        parameters,
        lr=rate,
        betas=betas,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )


def _adam8bit(
    parameters: list[Parameter], config: TrainConfig, rate: float
) -> torch.optim.Optimizer:
    if not parameters[0].is_cuda:
        raise UserError("TrainConfig: adam8bit needs a CUDA device; choose adam.")
    if config.resample_every is not None:
        raise UserError("TrainConfig: resample_every needs an exact optimiser state; choose adam.")
    try:
        from bitsandbytes.optim import Adam8bit
    except ImportError:
        raise UserError(
            "TrainConfig: adam8bit needs the package bitsandbytes; install it or choose adam."
        ) from None
    return Adam8bit(
        parameters,
        lr=rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )
