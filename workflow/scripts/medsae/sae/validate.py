"""Quality of an SAE on held-out activations."""

from dataclasses import dataclass

import torch
from torch import Tensor

from medsae.sae import parallel, sharding
from medsae.sae.metrics import FIRING, Quality, QualityMeter
from medsae.sae.model import INFERENCE_ROWS, SparseAutoencoder
from medsae.store import ActivationStore

THRESHOLD_BATCHES = 8


@dataclass(frozen=True)
class Validation:
    quality: Quality
    firings: Tensor  # int64 [n_latents], tokens on which each latent fired
    n_tokens: int

    @property
    def dead_fraction(self) -> float:
        """Share of latents that fired on no token at all."""
        return float((self.firings == 0).double().mean())


@torch.no_grad()
def set_thresholds(model: SparseAutoencoder, store: ActivationStore, max_rows: int) -> None:
    """Give an SAE that selects by batch the thresholds by which held-out rows get k latents.

    The mean over eight batches, or as many as there are, spread over the first ``max_rows``
    rows of ``store``; every process computes it.
    """
    if not model.selects_by_batch:
        return
    n_rows = min(max_rows, store.n_rows)
    n = min(THRESHOLD_BATCHES, -(-n_rows // INFERENCE_ROWS))
    for number in range(n):
        begin, end = number * n_rows // n, (number + 1) * n_rows // n
        x, _ = model.normalize(store.read(begin, min(end, begin + INFERENCE_ROWS)))
        model.see_held_out(x, 1 / (number + 1))


@torch.no_grad()
def validate(model: SparseAutoencoder, store: ActivationStore, max_rows: int) -> Validation:
    """Quality and firing counts on the first ``max_rows`` rows of ``store``.

    Several processes take their share of the rows and all return the whole.
    """
    device = model.W_enc.device
    meter = QualityMeter(model.b_pre)
    firings = torch.zeros(model.n_latents, dtype=torch.int64, device=device)
    n_rows = min(max_rows, store.n_rows)
    part, n_parts = parallel.batch_slice()
    share = -(-n_rows // n_parts)
    begin = min(n_rows, part * share)
    for raw in store.batches(INFERENCE_ROWS, begin, min(n_rows, begin + share)):
        x, _ = model.normalize(raw)
        code = model.gate(x - model.b_pre)
        meter.add(x, model.decode(code.values, code.pattern).sub_(x), code)
        firings += torch.bincount(
            code.pattern.columns[code.values > FIRING], minlength=firings.numel()
        )
    quality = QualityMeter.quality(parallel.summed(meter.state()))
    return Validation(quality, sharding.everywhere(parallel.summed(firings)).cpu(), n_rows)
