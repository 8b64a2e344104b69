"""Writing one shard: rows in any order, checked and renamed into place at the end."""

import mmap
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from medsae.io import UserError, atomic_path, remove_leftovers
from medsae.store.format import (
    DTYPE_NAMES,
    RESERVED,
    crc_hex,
    encode_header,
    facts_crc,
    first_non_finite_row,
)


class ShardWriter:
    """Context manager that writes a shard of shape [n_rows, n_columns].

    Rows go to a memory-mapped temporary file beside ``path``, so a shard may be larger
    than memory. Leaving the context normally checks that every row was written, adds the
    checksums and renames the file into place; an exception removes it. A row written
    twice keeps what was written last. One process writes a shard.

    Raises ``UserError`` if the dtype is not float32, float16 or bfloat16, if metadata use
    the reserved prefix ``medsae:``, if a row holds NaN or Inf (also after the cast to
    ``dtype``), or if rows are missing at the end.
    """

    def __init__(
        self,
        path: str | Path,
        n_rows: int,
        n_columns: int,
        dtype: torch.dtype,
        metadata: Mapping[str, str],
    ) -> None:
        self.path = Path(path)
        if dtype not in DTYPE_NAMES:
            raise UserError(f"{path}: a shard holds float32, float16 or bfloat16, not {dtype}.")
        if reserved := [key for key in metadata if key.startswith(RESERVED)]:
            raise UserError(f"{path}: the metadata key '{reserved[0]}' is reserved; rename it.")
        if n_rows < 0 or n_columns < 1:
            raise UserError(f"{path}: a shard cannot have shape [{n_rows}, {n_columns}].")
        self.n_rows, self.n_columns, self.dtype = n_rows, n_columns, dtype
        self.metadata = dict(metadata)

    def __enter__(self) -> Self:
        remove_leftovers(self.path)  # as large as a shard
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            self._open(temporary)
            stack.callback(self._release)
            self._stack = stack.pop_all()
        return self

    def write(self, start: int, block: Tensor) -> None:
        """Write ``block`` [m, n_columns] to rows ``start`` … ``start + m − 1``."""
        if start < 0 or start + block.shape[0] > self.n_rows:
            raise IndexError(
                f"{self.path}: rows {start} to {start + block.shape[0]} lie outside "
                f"0 to {self.n_rows}"
            )
        block = self._checked(block, lambda row: start + row)
        self._rows[start : start + block.shape[0]] = block
        self._written[start : start + block.shape[0]] = True

    def scatter(self, rows: Tensor, block: Tensor) -> None:
        """Write ``block`` [m, n_columns] to the rows named by the integers ``rows`` [m]."""
        rows = rows.to("cpu", torch.int64)
        if rows.shape != block.shape[:1]:
            raise ValueError(f"{self.path}: {rows.numel()} row numbers for {block.shape[0]} rows")
        if rows.numel() and (int(rows.min()) < 0 or int(rows.max()) >= self.n_rows):
            raise IndexError(f"{self.path}: row numbers lie outside 0 to {self.n_rows}")
        self._rows[rows] = self._checked(block, lambda row: int(rows[row]))
        self._written[rows] = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            with self._stack:
                self._finish()
        else:
            self._stack.__exit__(kind, error, trace)

    def _open(self, temporary: Path) -> None:
        header, self._crc_offset, self._block_rows = encode_header(
            self.n_rows, self.n_columns, self.dtype, self.metadata
        )
        count = self.n_rows * self.n_columns
        with temporary.open("w+b") as handle:
            handle.write(header)
            handle.truncate(len(header) + count * self.dtype.itemsize)
            self._map = mmap.mmap(handle.fileno(), 0)
        self._data_offset = len(header)
        self._rows = torch.empty(0, self.n_columns, dtype=self.dtype)
        if count:
            flat = torch.frombuffer(
                self._map, dtype=self.dtype, count=count, offset=self._data_offset
            )
            self._rows = flat.view(self.n_rows, self.n_columns)
        self._written = torch.zeros(self.n_rows, dtype=torch.bool)

    def _checked(self, block: Tensor, row_number: Callable[[int], int]) -> Tensor:
        if block.ndim != 2 or block.shape[1] != self.n_columns:
            raise ValueError(
                f"{self.path}: rows of shape {list(block.shape)} for {self.n_columns} columns"
            )
        block = block.detach().to("cpu", self.dtype)
        bad = first_non_finite_row(block)
        if bad is not None:
            raise UserError(
                f"{self.path}: row {row_number(bad)} holds NaN or Inf as {self.dtype}; check the "
                "model that produced it, or store with a wider type."
            )
        return block

    def _finish(self) -> None:
        missing = (~self._written).nonzero()
        if missing.numel():
            raise UserError(
                f"{self.path}: {missing.shape[0]} of {self.n_rows} rows were never written, "
                f"the first is row {int(missing[0])}."
            )
        block_bytes = self._block_rows * self.n_columns * self.dtype.itemsize
        crcs = [facts_crc(self.n_rows, self.n_columns, self.dtype, self.metadata, self._block_rows)]
        with memoryview(self._map) as view:
            for offset in range(self._data_offset, len(view), block_bytes):
                crcs.append(crc_hex(view[offset : offset + block_bytes]))
        digits = "".join(crcs).encode()
        self._map[self._crc_offset : self._crc_offset + len(digits)] = digits
        self._map.flush()

    def _release(self) -> None:
        del self._rows, self._map  # the map closes with its last user
