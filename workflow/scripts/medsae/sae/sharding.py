"""One SAE dealt over several processes, for dictionaries that one device cannot hold.

Process r of N holds the latents r, r + N, r + 2N, …: its rows of W_enc and W_dec, its entries
of b_enc, their gradients and optimiser moments; b_pre and the normalisation are everywhere.
Every process sees the whole batch. It selects among its own latents, the k best values per
token are compared over all, and decodes what it holds; the partial reconstructions are added.
Per step that moves N·k values and one row of d per token, whatever the number of latents;
sharding parameters that are gathered to be used (FSDP) would move the dictionary itself, three
times (see ``benchmarks/sae_training/README.md``). Dealing, not cutting, gives every process
its part of each Matryoshka prefix.

Without ``latents_sharded`` every function here returns its input.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from medsae.sae import parallel

REPLICATED = "b_pre"  # the one parameter that is not of a latent
USABLE_SHARE = 0.7  # of a device's memory, beside activations and workspace
BYTES = 4


@contextmanager
def latents_sharded(on: bool) -> Iterator[None]:
    """Inside, SAEs are built, trained and saved by all processes together."""
    before = parallel.set_latents_sharded(on)
    try:
        yield
    finally:
        parallel.set_latents_sharded(before)


def is_needed(n_latents: int, d_model: int, ema: bool, device: torch.device) -> bool:
    """Whether weights, gradients and Adam's moments are too large for one process."""
    needed = 2 * n_latents * d_model * BYTES * (5 if ema else 4)
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        memory //= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return parallel.is_parallel() and needed > USABLE_SHARE * memory


def share(n_latents: int) -> int:
    """How many of ``n_latents`` this process holds."""
    return local_rows(0, n_latents).stop


def local_rows(begin: int, end: int) -> slice:
    """Where this process holds the latents ``begin`` … ``end − 1``."""
    if not parallel.shards_latents():
        return slice(begin, end)
    rank, size = parallel.rank(), parallel.world_size()
    return slice(max(0, -((rank - begin) // size)), max(0, -((rank - end) // size)))


def own(rows: Tensor, first: int = 0) -> Tensor:
    """The rows that this process holds of ``rows``, which are the latents from ``first`` on."""
    if not parallel.shards_latents():
        return rows
    return rows[(parallel.rank() - first) % parallel.world_size() :: parallel.world_size()]


def everywhere(rows: Tensor) -> Tensor:
    """A vector [n_latents] put together from the parts of all processes, on each of them."""
    if not parallel.shards_latents():
        return rows
    return _dealt(parallel.gathered(rows))


def on_first(rows: Tensor) -> Tensor:
    """Rows [n_latents, …] put together on the CPU of the first process; elsewhere empty.

    All processes must call it.
    """
    if not parallel.shards_latents():
        return rows
    held = rows.detach().cpu().contiguous()
    counts = torch.tensor([held.shape[0]])
    sizes = [torch.zeros_like(counts) for _ in range(parallel.world_size())]
    dist.all_gather(sizes, counts)
    if parallel.rank() > 0:
        dist.send(held, 0)
        return held[:0]
    parts = [held]
    for rank in range(1, parallel.world_size()):
        part = held.new_empty(int(sizes[rank]), *held.shape[1:])
        dist.recv(part, rank)
        parts.append(part)
    return _dealt(parts)


def total(value: Tensor) -> Tensor:
    """Sum over the processes' latents, in place; no gradient."""
    if parallel.shards_latents():
        dist.all_reduce(value)
    return value


def summed(part: Tensor) -> Tensor:
    """Sum over the processes' latents; differentiable, each part has the sum's gradient."""
    return _Sum.apply(part) if parallel.shards_latents() else part


def best_of_all(values: Tensor, k: int) -> Tensor | None:
    """Which of ``values`` [n, m], the best of this process, are among the ``k`` best of all.

    Between equal values earlier processes come first. None if there is one process.
    """
    if not parallel.shards_latents():
        return None
    n, m = values.shape
    padded = values.new_full((n, k), -torch.inf, dtype=torch.float32)
    padded[:, :m] = values
    every = [torch.empty_like(padded) for _ in range(parallel.world_size())]
    dist.all_gather(every, padded)
    lowest = torch.cat(every, 1).topk(k, dim=1).values[:, -1:]
    spare = k - torch.stack([(part > lowest).sum(1) for part in every]).sum(0)
    for earlier in every[: parallel.rank()]:
        spare -= (earlier == lowest).sum(1)
    mine = padded[:, :m]
    equal = (mine == lowest) & (mine > -torch.inf)
    return (mine > lowest) | (equal & (equal.cumsum(1) <= spare[:, None]))


def is_of_latents(name: str, tensor: Tensor, parameters: list[str]) -> bool:
    """Whether a tensor of a model's or a trainer's state has a row for every latent.

    ``parameters`` are the names of the model's parameters, in order.
    """
    head, _, rest = name.partition(".")
    if head in ("optimizer", "average"):
        return tensor.ndim > 0 and parameters[int(rest.split(".")[0])] != REPLICATED
    name = rest if head == "model" else name
    return name == "tokens_since_fired" or (name in parameters and name != REPLICATED)


def _dealt(parts: list[Tensor]) -> Tensor:
    n = sum(part.shape[0] for part in parts)
    rows = parts[0].new_empty(n, *parts[0].shape[1:])
    for rank, part in enumerate(parts):
        rows[rank :: len(parts)] = part
    return rows


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        whole = part.clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient
