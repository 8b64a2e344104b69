"""The sparse products of ``medsae.sae.sparse`` on CUDA, as two Triton kernels.

``weighted_rows``  out[r] = Σ_e v[e] M[index[e]] over the entries e of row r
``sampled``        out[e] = ⟨left[r], right[index[e]]⟩ for every entry e of every row r

The first is the decoder forwards and, on the transposed pattern, the gradient of a weight
matrix; the second is the gradient of the codes. Both read only the rows that are active, sum
in float32 and never use atomics, so that these two give the same bits for the same input. That is
not so of a whole step on CUDA: the gradients of b_enc, and of b_pre through them, are added by
torch's ``index_add_``, which is atomic there.
"""

import triton
import triton.language as tl
from torch import Tensor

ENTRIES = 16  # entries that a program reads at once
COLUMNS = 128  # columns of a tile


def weighted_rows(
    pointers: Tensor, index: Tensor, values: Tensor, matrix: Tensor, out: Tensor, add: bool = False
) -> Tensor:
    """``out`` [n_rows, d] (+)= the sum of the rows ``index`` of ``matrix`` [m, d] by ``values``.

    Row r has the entries pointers[r] … pointers[r + 1] − 1. With ``add`` the sums are added to
    what ``out`` holds. ``matrix``, ``values`` and ``out`` are of any floating type.
    """
    n_rows, width = out.shape
    if n_rows and width:
        grid = (n_rows, triton.cdiv(width, COLUMNS))
        _weighted_rows[grid](
            pointers, index, values, matrix.contiguous(), out, width, out.stride(0),
            ADD=add, ENTRIES=ENTRIES, COLUMNS=COLUMNS,
        )  # fmt: skip
    return out


def sampled(
    pointers: Tensor, index: Tensor, left: Tensor, right: Tensor, longest: int | None = None
) -> Tensor:
    """⟨left[r], right[index[e]]⟩ [n_entries] for left [n_rows, d] and right [m, d].

    ``longest`` is the most entries of a row, read from ``pointers`` unless given.
    """
    out = left.new_zeros(index.numel())
    if index.numel() and left.shape[1]:
        if longest is None:
            longest = int(pointers.diff().max())
        grid = (left.shape[0], triton.cdiv(longest, ENTRIES))
        _sampled[grid](
            pointers, index, left.contiguous(), right.contiguous(), out, left.shape[1],
            ENTRIES=ENTRIES, COLUMNS=COLUMNS,
        )  # fmt: skip
    return out


@triton.jit
def _weighted_rows(
    pointers,
    index,
    values,
    matrix,
    out,
    width,
    out_stride,
    ADD: tl.constexpr,
    ENTRIES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < width
    begin = tl.load(pointers + row)
    end = tl.load(pointers + row + 1)
    total = tl.zeros((COLUMNS,), dtype=tl.float32)
    for first in range(begin, end, ENTRIES):
        entry = first + tl.arange(0, ENTRIES)
        valid = entry < end
        source = tl.load(index + entry, mask=valid, other=0).to(tl.int64)
        value = tl.load(values + entry, mask=valid, other=0.0).to(tl.float32)
        tile = tl.load(
            matrix + source[:, None] * width + columns[None, :],
            mask=valid[:, None] & inside[None, :],
            other=0.0,
        ).to(tl.float32)
        total += tl.sum(value[:, None] * tile, axis=0)
    place = out + row * out_stride + columns
    if ADD:
        total += tl.load(place, mask=inside, other=0.0).to(tl.float32)
    tl.store(place, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _sampled(
    pointers,
    index,
    left,
    right,
    out,
    width,
    ENTRIES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    end = tl.load(pointers + row + 1)
    entry = tl.load(pointers + row) + tl.program_id(1) * ENTRIES + tl.arange(0, ENTRIES)
    valid = entry < end
    source = tl.load(index + entry, mask=valid, other=0).to(tl.int64)
    total = tl.zeros((ENTRIES,), dtype=tl.float32)
    for first in range(0, width, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        inside = columns < width
        mine = tl.load(left + row * width + columns, mask=inside, other=0.0).to(tl.float32)
        tile = tl.load(
            right + source[:, None] * width + columns[None, :],
            mask=valid[:, None] & inside[None, :],
            other=0.0,
        ).to(tl.float32)
        total += tl.sum(mine[None, :] * tile, axis=1)
    tl.store(out + entry, total.to(out.dtype.element_ty), mask=valid)
