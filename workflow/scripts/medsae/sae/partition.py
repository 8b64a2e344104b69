"""The k largest entries of every row, on CPU with numpy's vectorised partition.

torch's ``topk`` moves (value, index) pairs one at a time; numpy partitions whole vector registers.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

FEWEST = 64  # columns below which there is nothing to gain
POSITION_BITS = 16


def largest_columns(rows: Tensor, k: int) -> Tensor:
    """Columns [n, k], int64, of the ``k`` largest entries of every row of ``rows`` [n, m].

    In no particular order; between equal entries the choice is free.
    """
    n, m = rows.shape
    if rows.device.type != "cpu" or m < FEWEST or not 0 < k < m or not n:
        return rows.topk(k, dim=1, sorted=False).indices
    if rows.dtype == torch.bfloat16 and m <= 1 << POSITION_BITS:
        return _by_position_in_the_value(rows, k)
    if rows.dtype not in (torch.float32, torch.float64):
        return rows.topk(k, dim=1, sorted=False).indices
    return _in_parts(lambda part: np.argpartition(part, m - k, axis=1)[:, m - k :], rows)


def _by_position_in_the_value(rows: Tensor, k: int) -> Tensor:
    """As ``largest_columns``, for bfloat16: its float32 form has room for the column.

    The lower half of the 32 bits is empty and orders entries that are equal.
    """
    m = rows.shape[1]
    keys = rows.float().view(torch.int32)
    keys.bitwise_or_(torch.arange(m, dtype=torch.int32))
    values = keys.view(torch.float32)
    largest = _in_parts(lambda part: np.partition(part, m - k, axis=1)[:, m - k :], values)
    return largest.view(torch.int32).bitwise_and_((1 << POSITION_BITS) - 1).long()


def _in_parts(choose: Callable[[np.ndarray], np.ndarray], rows: Tensor) -> Tensor:
    """``choose`` of all rows, with the rows dealt out to as many threads as torch uses."""
    n_threads = min(torch.get_num_threads(), len(rows))
    if n_threads == 1:
        return torch.from_numpy(np.ascontiguousarray(choose(rows.numpy())))
    parts = np.array_split(rows.numpy(), n_threads)
    return torch.from_numpy(np.concatenate(list(_threads(n_threads).map(choose, parts))))


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="partition")
