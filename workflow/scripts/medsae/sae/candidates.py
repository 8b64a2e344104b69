"""What ``medsae.sae.scan`` selects in float32, found faster among candidates of rounded rows.

All take float32 (or float64) x − b_pre [n_tokens, d], W_enc [n_latents, d] and b_enc [n_latents].
"""

import torch
from torch import Tensor

from medsae.sae import scan
from medsae.sae.partition import grain, largest_columns
from medsae.sae.rounding import RoundedBatch
from medsae.sae.sparse import Code, Pattern

FEWEST_SPARE = 16
# With fewer, rounding and the values of the candidates cost more than they save (measured).
FEWEST_TOKENS = 1024
LATENTS_PER_CANDIDATE = 32
MOST_PER_WANTED = 4  # candidates of a batch, before the whole product is the faster way


def top_k(centred: Tensor, weight: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    """Latents, int32, and values of the ``k`` largest of each token [n_tokens, k].

    None where the whole product is the faster way.
    """
    n_tokens, n = centred.shape[0], k + max(FEWEST_SPARE, k)
    if not _pays(n_tokens, weight.shape[0], n):
        return None
    rounded = RoundedBatch(centred, weight, bias)
    if rounded.is_too_rough:
        return None
    candidates = torch.empty(n_tokens, n, dtype=torch.int32, device=centred.device)
    lowest = torch.empty(n_tokens, 1, dtype=torch.int32, device=centred.device)
    for rows, scores in rounded.scores():
        index = largest_columns(scores, n, rounded.limit)
        candidates[rows] = index
        torch.amin(scores.gather(1, index), 1, keepdim=True, out=lowest[rows])
    # No latent beside the candidates, which were chosen to a grain, is above this.
    bound = (lowest + grain(rounded.limit)) * rounded.unit + rounded.slack
    pointers = torch.arange(n_tokens + 1, dtype=torch.int32, device=centred.device) * n
    pattern = Pattern(pointers, candidates.flatten(), weight.shape[0])
    exact = scan.values_at(pattern, centred, weight, bias).view(n_tokens, n)
    index = largest_columns(exact, k)
    columns, values = candidates.gather(1, index), exact.gather(1, index)
    is_clear = values.amin(1) >= bound[:, 0]  # no NaN is
    unclear = is_clear.logical_not().nonzero().flatten()
    if unclear.numel():
        again = scan.top_k(centred[unclear], weight, bias, k, centred.dtype)
        columns[unclear], values[unclear] = again
    return columns, values


def above(
    centred: Tensor, weight: Tensor, bias: Tensor, threshold: float, k: int
) -> tuple[Pattern, Tensor] | None:
    """All above ``threshold``, about ``k`` per token, and their values.

    None where the whole product is the faster way.
    """
    n_tokens, n_latents = centred.shape[0], weight.shape[0]
    if not _pays(n_tokens, n_latents, k):
        return None
    rounded = RoundedBatch(centred, weight, bias)
    if rounded.is_too_rough:
        return None
    least = ((threshold - rounded.slack) / rounded.unit).floor_()
    least = least.clamp_(-rounded.limit, rounded.limit).int()
    entries = scan.Entries(n_tokens, n_latents, centred.device)
    for rows, scores in rounded.scores():
        entries.add(rows.start, scores >= least[rows])
        if entries.found > MOST_PER_WANTED * n_tokens * k:
            return None
    pattern = entries.pattern()
    values = scan.values_at(pattern, centred, weight, bias)
    code = Code(pattern, values).where(values > threshold)
    return code.pattern, code.values


def _pays(n_tokens: int, n_latents: int, n_candidates: int) -> bool:
    """Whether candidates are found, and looked at again, faster than by the product itself."""
    return n_tokens >= FEWEST_TOKENS and n_latents >= LATENTS_PER_CANDIDATE * n_candidates
