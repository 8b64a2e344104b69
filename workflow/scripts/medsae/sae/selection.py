"""Which latents are active: selections that never hold a full batch of pre-activations.

All functions take x − b_pre [n_tokens, d], W_enc [n_latents, d] and b_enc [n_latents], need
no gradient, and return a pattern with the selected pre-activations; None stands for values yet to
be computed, where ``arithmetic`` is rougher than they are. Where processes share the latents, each
is given its own and returns those that are among the best of all; they may come by them in
different ways, so what they exchange is always of one type.
"""

from enum import Enum

import torch
from torch import Tensor

from medsae.sae import candidates, parallel, scan, sharding
from medsae.sae.products import blocks_of_pre_activations
from medsae.sae.sparse import Code, Pattern

Selection = tuple[Pattern, Tensor | None]

SAMPLE_TOKENS = 64
GUESS_MARGIN = 0.9


class Arithmetic(Enum):
    """How the products are made that decide which latents are active."""

    OWN = "the type of the activations"
    CANDIDATES = "the same, among candidates that rows rounded to int8 give"
    BFLOAT16 = "bfloat16"
    INT8 = "rows rounded to int8, where they can be; bfloat16 where not"

    def dtype(self, centred: Tensor) -> torch.dtype:
        """The type of a product that is taken as it is."""
        return centred.dtype if self in (Arithmetic.OWN, Arithmetic.CANDIDATES) else torch.bfloat16


@torch.no_grad()
def top_k_per_token(
    centred: Tensor, weight: Tensor, bias: Tensor, k: int, arithmetic: Arithmetic = Arithmetic.OWN
) -> Selection:
    """The ``k`` largest pre-activations of every token."""
    n_latents = weight.shape[0]
    wanted, k = k, min(k, n_latents)
    found, dtype = None, arithmetic.dtype(centred)
    if arithmetic == Arithmetic.CANDIDATES:
        found = candidates.top_k(centred, weight, bias, k)
    elif arithmetic == Arithmetic.INT8 and not parallel.shards_latents():
        latents = candidates.rough_top_k(centred, weight, bias, k)
        if latents is not None:
            return Pattern.of_rows(latents, n_latents), None
    columns, values = found or scan.top_k(centred, weight, bias, k, dtype)
    values = values.to(centred.dtype)
    code = Code(Pattern.of_rows(columns, n_latents), values.flatten())
    kept = sharding.best_of_all(values, wanted)
    if kept is not None:
        code = code.where(kept.flatten())
    return code.pattern, code.values if dtype == centred.dtype else None


@torch.no_grad()
def top_k_per_batch(
    centred: Tensor,
    weight: Tensor,
    bias: Tensor,
    k: int,
    arithmetic: Arithmetic = Arithmetic.OWN,
    guess: float | None = None,
) -> tuple[Selection, float]:
    """The n_tokens · k largest positive pre-activations of the batch, and the smallest kept.

    ``guess`` is a threshold near the answer, such as that of the batch before: it decides how fast
    the answer is found, and only in the last bits of its arithmetic what it is. CANDIDATES and INT8
    both decide by the values of candidates where the guess is above 0 and rows are smooth enough.
    Ties at the threshold go to the earlier entries. The batch is that of all processes together.
    """
    wanted = centred.shape[0] * k * parallel.batch_slice()[1]
    dtype = arithmetic.dtype(centred)
    if guess is None:
        guess = _guess_threshold(centred, weight, bias, k, dtype)
    for floor in (max(0.0, GUESS_MARGIN * guess), 0.0):
        selected = None
        if arithmetic in (Arithmetic.CANDIDATES, Arithmetic.INT8) and floor > 0.0:
            selected = candidates.above(centred, weight, bias, floor, k)
        pattern, values = selected or scan.above(centred, weight, bias, floor, dtype)
        values = values.to(centred.dtype)
        found = parallel.gathered(values)
        n_found = sum(part.numel() for part in found)
        if n_found >= wanted or floor == 0.0:
            break
    if n_found > wanted:
        lowest = torch.topk(torch.cat(found), wanted, sorted=False).values.min()
        keep = values > lowest
        spare = wanted - sum(int((part > lowest).sum()) for part in found)
        spare -= sum(int((part == lowest).sum()) for part in found[: parallel.rank()])
        keep[(values == lowest).nonzero().flatten()[: max(0, spare)]] = True
        kept = Code(pattern, values).where(keep)
        pattern, values, smallest = kept.pattern, kept.values, float(lowest)
    else:
        smallest = min((float(part.min()) for part in found if part.numel()), default=0.0)
    is_exact = selected is not None or dtype == centred.dtype
    return (pattern, values if is_exact else None), smallest


@torch.no_grad()
def above_threshold(
    centred: Tensor,
    weight: Tensor,
    bias: Tensor,
    threshold: Tensor | float,
    arithmetic: Arithmetic = Arithmetic.OWN,
) -> Selection:
    """Every pre-activation above ``threshold``, one number or one per latent [n_latents]."""
    dtype = arithmetic.dtype(centred)
    pattern, values = scan.above(centred, weight, bias, threshold, dtype)
    return pattern, values if dtype == centred.dtype else None


def _guess_threshold(
    centred: Tensor, weight: Tensor, bias: Tensor, k: int, dtype: torch.dtype
) -> float:
    sample = centred[:SAMPLE_TOKENS]
    _, block = next(blocks_of_pre_activations(sample, weight, bias, dtype))
    n = min(block.numel(), 2 * k * sample.shape[0])
    smallest = block.new_zeros(1).float()
    if n:
        smallest += block.flatten().topk(n, sorted=False).values.min()
    return float(sharding.total(parallel.summed(smallest))) / parallel.world_size()
