"""What changes with the step as functions of the step, so that nothing about it is state."""

import math

from medsae.sae.config import SAEConfig, TrainConfig

REFERENCE_RATE = 2e-4
REFERENCE_LATENTS = 2**14
FINAL_SHARE = 0.01  # of the learning rate, at the end of a cosine decay


def base_learning_rate(sae: SAEConfig, train: TrainConfig) -> float:
    """2e-4 / sqrt(n_latents / 2¹⁴) unless the configuration says otherwise (Gao et al. 2024)."""
    if train.learning_rate is not None:
        return train.learning_rate
    return REFERENCE_RATE / math.sqrt(sae.n_latents / REFERENCE_LATENTS)


def learning_rate(sae: SAEConfig, train: TrainConfig, step: int) -> float:
    """Rate of step ``step``, from 0: linear warm-up, constant, then decay."""
    rate, n_steps = base_learning_rate(sae, train), train.n_steps
    warmup_steps = round(train.warmup * n_steps)
    if step < warmup_steps:
        return rate * (step + 1) / warmup_steps
    decay_steps = round(train.decay_share * n_steps)
    left = (n_steps - step) / decay_steps if decay_steps else 1.0
    if train.decay == "none" or left >= 1:
        return rate
    if train.decay == "linear":
        return rate * left
    return rate * (FINAL_SHARE + (1 - FINAL_SHARE) * (1 - math.cos(math.pi * left)) / 2)


def active_k(sae: SAEConfig, train: TrainConfig, step: int) -> int:
    """k of step ``step``: from ``k_start`` down to ``k``, linearly."""
    anneal_steps = train.k_anneal * train.n_steps
    if train.k_start is None or step >= anneal_steps:
        return sae.k
    return round(train.k_start + (sae.k - train.k_start) * step / anneal_steps)


def averaging_weight(decay: float, step: int) -> float:
    """Weight of the newest value in a running mean with ``decay``, at step ``step`` from 0.

    1 − min(decay, (1 + step) / (20 + step)): while fewer than 19 / (1 − decay) steps lie behind,
    the mean is over about their last twentieth, so that no first value lingers in a short run.
    """
    return 1 - min(decay, (1 + step) / (20 + step))
