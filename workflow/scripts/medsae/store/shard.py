"""Reading one shard: zero-copy slices, and block reads that verify as they stream."""

import mmap
import os
import warnings
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

from medsae.io import UserError
from medsae.store.format import crc_hex, first_non_finite_row, read_header


class Shard:
    """A matrix [n_rows, n_columns] on disk; made by ``open_shard``.

    ``shard[a:b]`` and ``shard.rows(index)`` read through a memory map and do not check
    the data: call ``verify()`` once first where that matters. ``read(a, b)`` copies rows
    into memory and checks every block it touches. The file is open only while it is read
    or a slice is held: a study may have more shards than a process may have open files.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._header = read_header(self.path)
        self.n_rows = self._header.n_rows
        self.n_columns = self._header.n_columns
        self.dtype = self._header.dtype
        self.metadata = self._header.metadata

    def __len__(self) -> int:
        return self.n_rows

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change with the shard's content."""
        return crc_hex("".join(self._header.crcs).encode())

    def __getitem__(self, rows: slice) -> Tensor:
        """Rows ``a`` to ``b`` as a zero-copy view [b − a, n_columns]; never write into it."""
        return self._mapped()[rows]

    def rows(self, index: Tensor) -> Tensor:
        """The rows named by ``index`` [m] as [m, n_columns], in that order."""
        index = index.to("cpu", torch.int64)
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= self.n_rows):
            raise IndexError(f"{self.path}: row numbers lie outside 0 to {self.n_rows}")
        return self._mapped().index_select(0, index)

    def read(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` as a verified copy [stop − start, n_columns].

        Raises ``UserError`` naming the shard if a block fails its checksum, and the row
        too if it holds NaN or Inf.
        """
        if not 0 <= start <= stop <= self.n_rows:
            raise IndexError(f"{self.path}: rows {start} to {stop} lie outside 0 to {self.n_rows}")
        size = self._header.block_rows
        first = start // size * size
        last = min(-(-stop // size) * size, self.n_rows)
        block = self._read_raw(first, last)
        if self._header.crcs and block.numel():
            data = _bytes_of(block)
            step = size * self._header.row_bytes
            for number in range(first // size, -(-last // size)):
                offset = (number - first // size) * step
                if crc_hex(data[offset : offset + step]) != self._header.crcs[number]:
                    raise UserError(
                        f"{self.path}: rows {number * size} to "
                        f"{min((number + 1) * size, self.n_rows) - 1} fail their checksum; "
                        "the shard is damaged, delete it and write it again."
                    )
        bad = first_non_finite_row(block)
        if bad is not None:
            raise UserError(
                f"{self.path}: row {first + bad} holds NaN or Inf; write the shard again."
            )
        return block[start - first : stop - first]

    def verify(self) -> None:
        """Read the whole shard once; raises ``UserError`` as ``read`` does."""
        step = max(1, (64 << 20) // self._header.row_bytes)
        step = -(-step // self._header.block_rows) * self._header.block_rows
        for start in range(0, self.n_rows, step):
            self.read(start, min(start + step, self.n_rows))

    def _read_raw(self, start: int, stop: int) -> Tensor:
        block = torch.empty(stop - start, self.n_columns, dtype=self.dtype)
        if not block.numel():
            return block
        target = _bytes_of(block)
        offset = self._header.data_offset + start * self._header.row_bytes
        done = 0
        with self._opened() as file:
            while done < len(target):
                n = os.preadv(file.fileno(), [target[done:]], offset + done)
                if n == 0:
                    raise UserError(f"{self.path}: the shard was cut short while it was read.")
                done += n
        return block

    def _mapped(self) -> Tensor:
        count = self.n_rows * self.n_columns
        if not count:
            return torch.empty(0, self.n_columns, dtype=self.dtype)
        with self._opened() as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with warnings.catch_warnings():
            # torch has no read-only tensors and warns; the class forbids writing
            warnings.simplefilter("ignore", UserWarning)
            flat = torch.frombuffer(
                mapped, dtype=self.dtype, count=count, offset=self._header.data_offset
            )
        return flat.view(self.n_rows, self.n_columns)

    def _opened(self) -> FileIO:
        try:
            return FileIO(self.path)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror}).") from None


def _bytes_of(block: Tensor) -> memoryview:
    return block.view(torch.uint8).numpy().data.cast("B")


def open_shard(path: str | Path) -> Shard:
    """Open the shard at ``path``; raises ``UserError`` naming it if missing or truncated."""
    return Shard(path)
