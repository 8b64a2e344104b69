"""Which latents are active: exact selections that never hold a full batch of pre-activations.

All functions take x − b_pre [n_tokens, d], W_enc [n_latents, d] and b_enc [n_latents], need
no gradient, and return a pattern with the selected pre-activations. With a ``dtype`` rougher
than the input's the selection is made in it, and None stands for values yet to be computed.
Where processes share the latents, each is given its own and returns those that are among the
best of all.
"""

import math

import torch
from torch import Tensor

from medsae.sae import parallel, sharding
from medsae.sae.partition import largest_columns
from medsae.sae.products import blocks_of_pre_activations
from medsae.sae.sparse import Code, Pattern

Selection = tuple[Pattern, Tensor | None]

SAMPLE_TOKENS = 64
GUESS_MARGIN = 0.9


@torch.no_grad()
def top_k_per_token(
    centred: Tensor, weight: Tensor, bias: Tensor, k: int, dtype: torch.dtype | None = None
) -> Selection:
    """The ``k`` largest pre-activations of every token."""
    n_tokens, n_latents = centred.shape[0], weight.shape[0]
    wanted, k, dtype = k, min(k, n_latents), dtype or centred.dtype
    exact = dtype == centred.dtype
    has_values = exact or parallel.shards_latents()
    columns = torch.empty(n_tokens, k, dtype=torch.int32, device=centred.device)
    values = torch.empty(n_tokens if has_values else 0, k, dtype=dtype, device=centred.device)
    for start, block in blocks_of_pre_activations(centred, weight, bias, dtype):
        index = _largest(block, k)
        columns[start : start + block.shape[0]] = index
        if has_values:
            torch.gather(block, 1, index, out=values[start : start + block.shape[0]])
    pointers = torch.arange(n_tokens + 1, dtype=torch.int32, device=centred.device) * k
    code = Code(Pattern(pointers, columns.flatten(), n_latents), values.flatten())
    kept = sharding.best_of_all(values, wanted)
    if kept is not None:
        code = code.where(kept.flatten())
    return code.pattern, code.values if exact else None


@torch.no_grad()
def top_k_per_batch(
    centred: Tensor,
    weight: Tensor,
    bias: Tensor,
    k: int,
    dtype: torch.dtype | None = None,
    guess: float | None = None,
) -> tuple[Selection, float]:
    """The n_tokens · k largest positive pre-activations of the batch, and the smallest kept.

    ``guess`` is a threshold near the answer, such as that of the batch before: it decides
    how fast the answer is found, never what it is. Ties at the threshold go to the earlier
    entries. The batch is that of all processes together.
    """
    dtype = dtype or centred.dtype
    wanted = centred.shape[0] * k * parallel.batch_slice()[1]
    if guess is None:
        guess = _guess_threshold(centred, weight, bias, k, dtype)
    for floor in (max(0.0, GUESS_MARGIN * guess), 0.0):
        pattern, values = _above(centred, weight, bias, floor, dtype)
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
    return (pattern, values if dtype == centred.dtype else None), smallest


@torch.no_grad()
def above_threshold(
    centred: Tensor,
    weight: Tensor,
    bias: Tensor,
    threshold: Tensor | float,
    dtype: torch.dtype | None = None,
) -> Selection:
    """Every pre-activation above ``threshold``, one number or one per latent [n_latents]."""
    dtype = dtype or centred.dtype
    pattern, values = _above(centred, weight, bias, threshold, dtype)
    return pattern, values if dtype == centred.dtype else None


def _above(
    centred: Tensor, weight: Tensor, bias: Tensor, threshold: Tensor | float, dtype: torch.dtype
) -> tuple[Pattern, Tensor]:
    n_tokens, n_latents = centred.shape[0], weight.shape[0]
    pointers = torch.zeros(n_tokens + 1, dtype=torch.int32, device=centred.device)
    columns, values, found = [], [], 0
    for start, block in blocks_of_pre_activations(centred, weight, bias, dtype):
        flat = (block > threshold).flatten().nonzero().flatten()
        ends = torch.arange(1, block.shape[0] + 1, device=flat.device) * n_latents
        pointers[start + 1 : start + 1 + block.shape[0]] = found + torch.searchsorted(flat, ends)
        columns.append((flat % n_latents).int())
        values.append(block.flatten()[flat])
        found += flat.numel()
    if not columns:
        return Pattern(pointers, pointers[:0], n_latents), centred.new_zeros(0)
    return Pattern(pointers, torch.cat(columns), n_latents), torch.cat(values)


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


def _largest(rows: Tensor, k: int) -> Tensor:
    """Columns [n, k] of the ``k`` largest entries of every row of ``rows`` [n, m].

    They lie in the k groups of columns with the largest maxima.
    """
    n, m = rows.shape
    group = 2 ** int(math.log2(max(1.0, math.sqrt(m / max(k, 1)))))
    n_groups = m // group
    if group < 4 or n_groups < 2 * k:
        return largest_columns(rows, k)
    whole = n_groups * group
    strided = rows[:, :whole].unflatten(1, (group, n_groups))  # vectorises over the groups
    chosen = largest_columns(strided.amax(1), k)
    members = torch.arange(group, device=rows.device)[:, None] * n_groups
    candidates = (chosen[:, None, :] + members).flatten(1)
    if whole < m:
        rest = torch.arange(whole, m, device=rows.device).expand(n, -1)
        candidates = torch.cat([candidates, rest], 1)
    return candidates.gather(1, largest_columns(rows.gather(1, candidates), k))
