"""Which latents are active: exact selections that never hold a full batch of pre-activations.

All functions take x − b_pre [n_tokens, d], W_enc [n_latents, d] and b_enc [n_latents], need
no gradient, and return a pattern with the selected pre-activations. With the ``dtype`` bfloat16
the selection is made in it, and None stands for values yet to be computed. With int8 it is that
of float32, found among the candidates that rounded rows give. Where processes share the latents,
each is given its own and returns those that are among the best of all.
"""

import torch
from torch import Tensor

from medsae.sae import parallel, sharding
from medsae.sae.partition import grain, largest_columns
from medsae.sae.products import blocks_of_pre_activations
from medsae.sae.rounding import RoundedBatch
from medsae.sae.sparse import Code, Pattern, sampled_product

Selection = tuple[Pattern, Tensor | None]

SAMPLE_TOKENS = 64
GUESS_MARGIN = 0.9
FEWEST_SPARE = 16
# With fewer, rounding and the values of the candidates cost more than they save (measured).
FEWEST_TOKENS = 1024
LATENTS_PER_CANDIDATE = 32


@torch.no_grad()
def top_k_per_token(
    centred: Tensor, weight: Tensor, bias: Tensor, k: int, dtype: torch.dtype | None = None
) -> Selection:
    """The ``k`` largest pre-activations of every token."""
    n_tokens, n_latents = centred.shape[0], weight.shape[0]
    wanted, k = k, min(k, n_latents)
    if dtype == torch.int8 and _pays(n_tokens, n_latents, _n_candidates(k)):
        columns, values = _top_k_of_candidates(centred, weight, bias, k)
    else:
        columns, values = _top_k(centred, weight, bias, k, _own_type(dtype, centred))
    pointers = torch.arange(n_tokens + 1, dtype=torch.int32, device=centred.device) * k
    code = Code(Pattern(pointers, columns.flatten(), n_latents), values.flatten())
    kept = sharding.best_of_all(values, wanted)
    if kept is not None:
        code = code.where(kept.flatten())
    return code.pattern, None if dtype == torch.bfloat16 else code.values


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
    n_tokens = centred.shape[0]
    wanted = n_tokens * k * parallel.batch_slice()[1]
    own = _own_type(dtype, centred)
    if guess is None:
        guess = _guess_threshold(centred, weight, bias, k, own)
    for floor in (max(0.0, GUESS_MARGIN * guess), 0.0):
        if dtype == torch.int8 and floor > 0.0 and _pays(n_tokens, weight.shape[0], k):
            pattern, values = _above_by_candidates(centred, weight, bias, floor)
        else:
            pattern, values = _above(centred, weight, bias, floor, own)
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
    return (pattern, None if dtype == torch.bfloat16 else values), smallest


@torch.no_grad()
def above_threshold(
    centred: Tensor,
    weight: Tensor,
    bias: Tensor,
    threshold: Tensor | float,
    dtype: torch.dtype | None = None,
) -> Selection:
    """Every pre-activation above ``threshold``, one number or one per latent [n_latents]."""
    pattern, values = _above(centred, weight, bias, threshold, _own_type(dtype, centred))
    return pattern, None if dtype == torch.bfloat16 else values


def _own_type(dtype: torch.dtype | None, centred: Tensor) -> torch.dtype:
    """The type of a product that is taken as it is, not only for candidates."""
    return centred.dtype if dtype in (None, torch.int8) else dtype


def _top_k(
    centred: Tensor, weight: Tensor, bias: Tensor, k: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Latents, int32, and values of the ``k`` largest of each token [n_tokens, k]."""
    columns = torch.empty(centred.shape[0], k, dtype=torch.int32, device=centred.device)
    values = torch.empty(centred.shape[0], k, dtype=dtype, device=centred.device)
    for start, block in blocks_of_pre_activations(centred, weight, bias, dtype):
        rows = slice(start, start + block.shape[0])
        index = largest_columns(block, k)
        columns[rows] = index
        torch.gather(block, 1, index, out=values[rows])
    return columns, values


def _pays(n_tokens: int, n_latents: int, n_candidates: int) -> bool:
    """Whether candidates are found, and looked at again, faster than by the product itself."""
    return n_tokens >= FEWEST_TOKENS and n_latents >= LATENTS_PER_CANDIDATE * n_candidates


def _n_candidates(k: int) -> int:
    """So many that nearly every token's choice is clear of what rounding can hide."""
    return k + max(FEWEST_SPARE, k)


def _top_k_of_candidates(
    centred: Tensor, weight: Tensor, bias: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """As ``_top_k`` in the type of ``centred``."""
    n_tokens, n = centred.shape[0], _n_candidates(k)
    candidates = torch.empty(n_tokens, n, dtype=torch.int32, device=centred.device)
    lowest = torch.empty(n_tokens, 1, dtype=torch.int32, device=centred.device)
    rounded = RoundedBatch(centred, weight, bias)
    for rows, scores in rounded.scores():
        index = largest_columns(scores, n, rounded.limit)
        candidates[rows] = index
        torch.amin(scores.gather(1, index), 1, keepdim=True, out=lowest[rows])
    # No latent beside the candidates is above this. Groups, then members were chosen to a grain.
    bound = (lowest + 2 * grain(rounded.limit)) * rounded.unit + rounded.slack
    pointers = torch.arange(n_tokens + 1, dtype=torch.int32, device=centred.device) * n
    pattern = Pattern(pointers, candidates.flatten(), weight.shape[0])
    exact = _values_at(pattern, centred, weight, bias).view(n_tokens, n)
    index = largest_columns(exact, k)
    columns, values = candidates.gather(1, index), exact.gather(1, index)
    unclear = (values.amin(1, keepdim=True) < bound).flatten().nonzero().flatten()
    if unclear.numel():
        again = _top_k(centred[unclear], weight, bias, k, centred.dtype)
        columns[unclear], values[unclear] = again
    return columns, values


def _above(
    centred: Tensor, weight: Tensor, bias: Tensor, threshold: Tensor | float, dtype: torch.dtype
) -> tuple[Pattern, Tensor]:
    entries = _Entries(centred.shape[0], weight.shape[0], centred.device)
    values = []
    for start, block in blocks_of_pre_activations(centred, weight, bias, dtype):
        values.append(block.flatten()[entries.add(start, block > threshold)])
    return entries.pattern(), torch.cat(values) if values else centred.new_zeros(0)


def _above_by_candidates(
    centred: Tensor, weight: Tensor, bias: Tensor, threshold: float
) -> tuple[Pattern, Tensor]:
    """As ``_above`` in the type of ``centred``."""
    entries = _Entries(centred.shape[0], weight.shape[0], centred.device)
    rounded = RoundedBatch(centred, weight, bias)
    least = ((threshold - rounded.slack) / rounded.unit).floor_()
    least = least.clamp_(-rounded.limit, rounded.limit).int()
    for rows, scores in rounded.scores():
        entries.add(rows.start, scores >= least[rows])
    pattern = entries.pattern()
    values = _values_at(pattern, centred, weight, bias)
    code = Code(pattern, values).where(values > threshold)
    return code.pattern, code.values


def _values_at(pattern: Pattern, centred: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return sampled_product(pattern, centred, weight) + bias[pattern.columns]


class _Entries:
    """Collects a pattern from the masks of one block of tokens after another."""

    def __init__(self, n_tokens: int, n_latents: int, device: torch.device) -> None:
        self._pointers = torch.zeros(n_tokens + 1, dtype=torch.int32, device=device)
        self._columns: list[Tensor] = []
        self._n_latents, self._found = n_latents, 0

    def add(self, start: int, mask: Tensor) -> Tensor:
        """Take the entries that ``mask`` [block, n_latents] marks, for the tokens from ``start``.

        Returns their positions in the flattened block.
        """
        flat = mask.flatten().nonzero().flatten()
        ends = torch.arange(1, mask.shape[0] + 1, device=flat.device) * self._n_latents
        rows = slice(start + 1, start + 1 + mask.shape[0])
        self._pointers[rows] = self._found + torch.searchsorted(flat, ends)
        self._columns.append((flat % self._n_latents).int())
        self._found += flat.numel()
        return flat

    def pattern(self) -> Pattern:
        columns = torch.cat(self._columns) if self._columns else self._pointers[:0]
        return Pattern(self._pointers, columns, self._n_latents)


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
