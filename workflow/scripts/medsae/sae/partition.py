"""The k largest entries of every row.

torch's ``topk`` moves (value, index) pairs one at a time. In bfloat16 on CPU a pair fits one
float32 value, and numpy partitions those in whole vector registers.
"""

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
    m = rows.shape[1]
    can_pack = rows.dtype == torch.bfloat16 and rows.device.type == "cpu"
    if can_pack and len(rows) and 0 < k < m and FEWEST <= m <= 1 << POSITION_BITS:
        return _by_position_in_the_value(rows, k)
    return rows.topk(k, dim=1, sorted=False).indices


def _by_position_in_the_value(rows: Tensor, k: int) -> Tensor:
    """As ``largest_columns``, for bfloat16: its float32 form has room for the column.

    The lower half of the 32 bits is empty and orders entries that are equal.
    """
    m = rows.shape[1]
    keys = rows.float().view(torch.int32)
    keys.bitwise_or_(torch.arange(m, dtype=torch.int32))
    largest = _partitioned(keys.view(torch.float32).numpy(), m - k)[:, m - k :]
    bits = torch.from_numpy(np.ascontiguousarray(largest)).view(torch.int32)
    return bits.bitwise_and_((1 << POSITION_BITS) - 1).long()


def _partitioned(rows: np.ndarray, place: int) -> np.ndarray:
    """``rows`` with the entry that belongs at ``place`` there, smaller ones before it."""
    n_threads = min(torch.get_num_threads(), len(rows))
    if n_threads == 1:
        return np.partition(rows, place, axis=1)
    parts = np.array_split(rows, n_threads)
    return np.concatenate(
        list(_threads(n_threads).map(lambda part: np.partition(part, place, axis=1), parts))
    )


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="partition")
