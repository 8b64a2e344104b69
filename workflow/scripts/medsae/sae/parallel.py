"""Several processes training one SAE on slices of the same batches (data parallel).

Every process holds the whole SAE, computes on its slice, and averages gradients. Whatever is
a property of the batch and not of a token (the batch-wise top k, AuxK's variance, which
latents fired) is computed over all processes, so that n processes train as one does, up to
the order of float32 sums. In a single process, and where the processes share the latents
instead of the batch (``medsae.sae.sharding``), these functions return their input.
"""

import os
from collections.abc import Iterable

import torch
from torch import Tensor
from torch import distributed as dist


def is_parallel() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


_latents_are_sharded = False


def set_latents_sharded(on: bool) -> bool:
    """Whether processes hold different latents; returns what held before."""
    global _latents_are_sharded
    before, _latents_are_sharded = _latents_are_sharded, on
    return before


def shards_latents() -> bool:
    return _latents_are_sharded and is_parallel()


def shards_batches() -> bool:
    return not _latents_are_sharded and is_parallel()


def batch_slice() -> tuple[int, int]:
    """(which slice of every batch this process takes, of how many)."""
    return (rank(), world_size()) if shards_batches() else (0, 1)


def rank() -> int:
    return dist.get_rank() if is_parallel() else 0


def world_size() -> int:
    return dist.get_world_size() if is_parallel() else 1


def join(device: torch.device) -> torch.device:
    """Join the processes that torchrun started, if it did; returns this process's device."""
    if "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return device


def summed(value: Tensor) -> Tensor:
    """Sum over the processes, in place."""
    if shards_batches():
        dist.all_reduce(value)
    return value


def averaged(value: Tensor) -> Tensor:
    """Mean over the processes, in place."""
    return summed(value).div_(world_size()) if shards_batches() else value


def average_all(values: Iterable[Tensor]) -> None:
    for value in values:
        averaged(value)


def any_of(mask: Tensor) -> Tensor:
    """Where ``mask`` holds in any process."""
    if not shards_batches():
        return mask
    counts = mask.to(torch.uint8)
    dist.all_reduce(counts, dist.ReduceOp.MAX)
    return counts.bool()


def from_first(values: Iterable[Tensor]) -> None:
    """Give every process the tensors of the first, in place."""
    if is_parallel():
        for value in values:
            dist.broadcast(value, 0)


def gathered(values: Tensor) -> list[Tensor]:
    """Vectors of every process, of any lengths, by rank."""
    if not is_parallel():
        return [values]
    length = torch.tensor([values.numel()], device=values.device)
    lengths = [torch.zeros_like(length) for _ in range(world_size())]
    dist.all_gather(lengths, length)
    longest = max(int(n) for n in lengths)
    padded = torch.zeros(longest, dtype=values.dtype, device=values.device)
    padded[: values.numel()] = values
    parts = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(parts, padded)
    return [part[: int(n)] for part, n in zip(parts, lengths, strict=True)]


def of_whole_batch(values: Tensor) -> Tensor:
    """A vector with an entry for every token of the batch of all processes, from their parts."""
    return torch.cat(gathered(values)) if shards_batches() else values


def rows_of_whole_batch(x: Tensor, index: Tensor) -> Tensor:
    """The rows ``index`` [m], the same everywhere, of the batch whose slice here is x [n, d]."""
    if not shards_batches():
        return x[index]
    held = index - rank() * x.shape[0]
    mine = (held >= 0) & (held < x.shape[0])
    rows = x.new_zeros(index.numel(), x.shape[1])
    rows[mine] = x[held[mine]]
    return summed(rows)  # all but one summand are 0: the sum is exact


def wait() -> None:
    """Return when every process has come here."""
    if is_parallel():
        dist.barrier()
