"""BatchTopK (Bussmann et al. 2024): the n·k largest positive pre-activations of a batch.

Tokens share a budget of k latents on average. At inference a token must not depend on the
others, so the gate is z = u · 1[u > θ], with θ a running mean of the smallest activation
that training batches kept. The mean begins short and grows (``schedule.averaging_weight``):
activations change fast at first, and what they were then must not outlive a short run.
Rows that training has seen often are not like new ones, which by their θ get more or fewer
latents: validation, if it has rows enough, sets θ to the mean over their batches.

Loss: mean (x − x̂)² / Var(x); the trainer adds AuxK.
"""

import torch
from torch import Tensor

from medsae.sae.architectures.registry import register
from medsae.sae.config import SAEConfig
from medsae.sae.model import Objective, SparseAutoencoder
from medsae.sae.schedule import averaging_weight
from medsae.sae.selection import above_threshold, top_k_per_batch
from medsae.sae.sparse import Code

THRESHOLD_DECAY = 0.99
UNSET = -1.0


@register("batch_topk")
class BatchTopK(SparseAutoencoder):
    anneals_k = True
    selects_by_batch = True
    threshold: Tensor

    def __init__(self, config: SAEConfig, d_model: int) -> None:
        super().__init__(config, d_model)
        self.register_buffer("threshold", torch.tensor(UNSET))
        self.smallest = [None]

    @torch.no_grad()
    def gate(self, centred: Tensor) -> Code:
        if float(self.threshold) == UNSET:
            pattern, known = top_k_per_batch(centred, self.W_enc, self.b_enc, self.config.k)[0]
        else:
            pattern, known = above_threshold(centred, self.W_enc, self.b_enc, self.threshold)
        return Code(pattern, self.pre_activations_at(centred, pattern, known))

    def objective(self, x: Tensor) -> Objective:
        code = self.training_code(x)
        error = self.decode(code.values, code.pattern).sub_(x)
        return Objective(error, code, {"mse": self.scaled_error(error)})

    def training_code(self, x: Tensor) -> Code:
        """The batch's codes, differentiable; remembers the smallest kept activation."""
        centred = x - self.b_pre.detach()
        (pattern, known), self.smallest[0] = top_k_per_batch(
            centred, self.W_enc, self.b_enc, self.k, self.arithmetic, self.smallest[0]
        )
        return Code(pattern, self.pre_activations_at(centred, pattern, known).relu())

    @torch.no_grad()
    def after_step(self, code: Code, step: int) -> None:
        if self.smallest[0] is not None:
            weight = averaging_weight(THRESHOLD_DECAY, step)
            move_threshold(self.threshold, self.smallest[0], weight)

    @torch.no_grad()
    def see_held_out(self, x: Tensor, weight: float) -> None:
        centred, k = x - self.b_pre, self.config.k
        move_threshold(
            self.threshold, top_k_per_batch(centred, self.W_enc, self.b_enc, k)[1], weight
        )


def move_threshold(threshold: Tensor, smallest: float, weight: float) -> None:
    """Running mean of the smallest kept activation, in place; the first one starts it."""
    if float(threshold) == UNSET:
        threshold.fill_(smallest)
    else:
        threshold.lerp_(torch.full_like(threshold, smallest), weight)
