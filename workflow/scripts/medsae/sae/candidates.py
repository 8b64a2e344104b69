"""The selections of ``medsae.sae.scan``, faster, from rows rounded to 8 bits.

All take float32 (or float64) x − b_pre [n_tokens, d], W_enc [n_latents, d] and b_enc [n_latents],
and return None where the whole product is the faster way.
"""

import math

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
ENOUGH_FOR = 0.99  # of the tokens; doing one over costs as much as a few hundred candidates
MARGIN = 1.1
MOST_PER_WANTED = 4  # candidates of a batch, before the whole product is the faster way


def top_k(centred: Tensor, weight: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    """What ``scan.top_k`` selects: latents, int32, and values of each token [n_tokens, k].

    How many candidates there are depends on how many the tokens before would have needed.
    """
    n_tokens, n = centred.shape[0], k + max(FEWEST_SPARE, k)
    rounded = _rounded_batch(centred, weight, bias, n)
    if rounded is None:
        return None
    columns = torch.empty(n_tokens, k, dtype=torch.int32, device=centred.device)
    values, is_clear = centred.new_empty(n_tokens, k), torch.ones_like(rounded.is_rough)
    for rows, scores in rounded.scores():
        candidates = largest_columns(scores, n, rounded.limit)
        pattern = Pattern.of_rows(candidates.int(), weight.shape[0])
        exact = scan.values_at(pattern, centred[rows], weight, bias).view(-1, n)
        index = largest_columns(exact, k)
        columns[rows] = candidates.gather(1, index)
        torch.gather(exact, 1, index, out=values[rows])
        # What each could be at most; no latent beside them, chosen to a grain, could be more.
        limits = scores.gather(1, candidates).add_(grain(rounded.limit)) * rounded.unit[rows]
        is_spare = limits + rounded.slack[rows] < values[rows].amin(1, keepdim=True)
        is_clear[rows] = is_spare.any(1)  # with NaN none is
        n_needed = n - is_spare.sum(1)
        n = _enough(n_needed[~rounded.is_rough[rows]], n, k, weight.shape[0])
    again = is_clear.logical_not().nonzero().flatten()
    if again.numel():
        found, _ = scan.top_k(centred[again], weight, bias, k, centred.dtype)
        columns[again] = found
        pattern = Pattern.of_rows(found, weight.shape[0])
        values[again] = scan.values_at(pattern, centred[again], weight, bias).view(-1, k)
    return columns, values


def rough_top_k(centred: Tensor, weight: Tensor, bias: Tensor, k: int) -> Tensor | None:
    """Latents, int32 [n_tokens, k], that are the largest of each token by rounded rows alone.

    By bfloat16 for tokens that are too rough.
    """
    rounded = _rounded_batch(centred, weight, bias, k)
    if rounded is None:
        return None
    columns = torch.empty(centred.shape[0], k, dtype=torch.int32, device=centred.device)
    for rows, scores in rounded.scores():
        columns[rows] = largest_columns(scores, k, rounded.limit)
    again = rounded.is_rough.nonzero().flatten()
    if again.numel():
        columns[again], _ = scan.top_k(centred[again], weight, bias, k, torch.bfloat16)
    return columns


def above(
    centred: Tensor, weight: Tensor, bias: Tensor, threshold: float, k: int
) -> tuple[Pattern, Tensor] | None:
    """All above ``threshold``, about ``k`` per token, and their values."""
    n_tokens, n_latents = centred.shape[0], weight.shape[0]
    rounded = _rounded_batch(centred, weight, bias, k)
    if rounded is None:
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


def _rounded_batch(
    centred: Tensor, weight: Tensor, bias: Tensor, n_candidates: int
) -> RoundedBatch | None:
    """The rounded rows, if candidates are found and looked at faster than by the product itself."""
    if centred.shape[0] < FEWEST_TOKENS or weight.shape[0] < LATENTS_PER_CANDIDATE * n_candidates:
        return None
    rounded = RoundedBatch(centred, weight, bias)
    return None if rounded.is_too_rough else rounded


def _enough(n_needed: Tensor, n: int, k: int, n_latents: int) -> int:
    """How many candidates the next tokens get, if these got ``n`` and ``n_needed`` of them."""
    if not n_needed.numel():
        return n
    usual = int(n_needed.kthvalue(max(1, int(ENOUGH_FOR * n_needed.numel()))).values)
    return min(n_latents // LATENTS_PER_CANDIDATE, max(k + 1, math.ceil(MARGIN * usual)))
