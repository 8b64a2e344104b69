"""Quality of an SAE on held-out activations."""

from dataclasses import dataclass

import torch
from torch import Tensor

from medsae.sae import parallel, sharding
from medsae.sae.metrics import FIRING, Quality, QualityMeter
from medsae.sae.model import INFERENCE_ROWS, SparseAutoencoder
from medsae.store import ActivationStore

THRESHOLD_BATCHES = 8
# Fewer say more of the few notes or slices they are from than of what is to come.
FEWEST_FOR_THRESHOLDS = 1024


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

    The mean over eight batches, or as many as there are, each of rows spread over the first
    ``max_rows`` of ``store``; every process computes it. With fewer than 1,024 rows nothing
    changes. The rows are not verified here: ``validate`` reads them all.
    """
    n_rows = min(max_rows, store.n_rows)
    if not model.selects_by_batch or n_rows < FEWEST_FOR_THRESHOLDS:
        return
    step = -(-n_rows // INFERENCE_ROWS)  # neighbours are of one note, which is no batch
    for number in range(min(THRESHOLD_BATCHES, step)):
        x, _ = model.normalize(store.rows(torch.arange(number, n_rows, step)))
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
