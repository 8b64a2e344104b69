"""The k largest entries of every row.

torch's ``topk`` moves (value, index) pairs one at a time. On CPU a value that needs fewer than
32 bits and its column fit one number, and numpy partitions those in whole vector registers.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

FEWEST = 64  # columns below which there is nothing to gain
BFLOAT16_BITS = 16  # free for the column in a bfloat16 written as float32
INTEGER_BITS = 12  # made free for the column in an int32
FEWEST_TO_SHARE = 1 << 19  # entries below which waking a second thread takes longer


def grain(limit: int) -> int:
    """The difference below which integers under ``limit`` may be taken for one another."""
    return 1 << max(0, INTEGER_BITS + limit.bit_length() - 31)


def largest_columns(rows: Tensor, k: int, limit: int | None = None) -> Tensor:
    """Columns [n, k], int64, of the ``k`` largest entries of every row of ``rows`` [n, m].

    In no particular order; between equal entries the choice is free. Where ``limit`` is given,
    ``rows`` are int32, absolutely smaller than it, and the choice is free between entries less than
    a grain apart. They lie in the k groups of columns with the largest maxima.
    """
    n, m = rows.shape
    group = 2 ** int(math.log2(max(1.0, math.sqrt(m / max(k, 1)))))
    n_groups = m // group
    if group < 4 or n_groups < 2 * k:
        return _largest(rows, k, limit)
    whole = n_groups * group
    strided = rows[:, :whole].unflatten(1, (group, n_groups))  # vectorises over the groups
    chosen = _largest(strided.amax(1), k, limit)
    members = torch.arange(group, device=rows.device)[:, None] * n_groups
    candidates = (chosen[:, None, :] + members).flatten(1)
    if whole < m:
        rest = torch.arange(whole, m, device=rows.device).expand(n, -1)
        candidates = torch.cat([candidates, rest], 1)
    return candidates.gather(1, _largest(rows.gather(1, candidates), k, limit))


def _largest(rows: Tensor, k: int, limit: int | None) -> Tensor:
    m = rows.shape[1]
    if rows.device.type == "cpu" and len(rows) and m >= FEWEST and 0 < k < m:
        if rows.dtype == torch.bfloat16 and m <= 1 << BFLOAT16_BITS:
            # The lower half of the float32 form is empty and orders entries that are equal.
            keys = rows.float().view(torch.int32).bitwise_or_(_columns(m))
            largest = _partitioned(keys.view(torch.float32), m - k).view(torch.int32)
            return largest.bitwise_and_((1 << BFLOAT16_BITS) - 1).long()
        if limit is not None and m <= 1 << INTEGER_BITS:
            keys = rows.bitwise_right_shift(grain(limit).bit_length() - 1)
            keys.bitwise_left_shift_(INTEGER_BITS).bitwise_or_(_columns(m))
            return _partitioned(keys, m - k).bitwise_and_((1 << INTEGER_BITS) - 1).long()
    return rows.topk(k, dim=1, sorted=False).indices


def _columns(m: int) -> Tensor:
    return torch.arange(m, dtype=torch.int32)


def _partitioned(keys: Tensor, place: int) -> Tensor:
    """What belongs at ``place`` and behind it in every row of ``keys``, which it disorders."""
    rows = keys.numpy()
    n_threads = min(torch.get_num_threads(), len(rows))
    if n_threads == 1 or rows.size < FEWEST_TO_SHARE:
        rows.partition(place, axis=1)
    else:
        parts = np.array_split(rows, n_threads)  # views
        list(_threads(n_threads).map(lambda part: part.partition(place, axis=1), parts))
    return keys[:, place:]


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="partition")
