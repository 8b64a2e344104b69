"""The shard format: one safetensors file holding one matrix, with checksums inside.

The file is an ordinary safetensors file (8-byte little-endian header length, JSON header,
data) holding the tensor ``activations`` [n_rows, n_columns]. Two reserved metadata keys
make it self-checking:

``medsae:block_rows``  rows per checksum block
``medsae:crc32``       8 hexadecimal digits for the header's own facts (dtype, shape and
                       metadata), then 8 for each block of rows

The checksums have a fixed width, so the header's length is known before the data are: a
writer reserves the place, streams the rows, then patches the digits in.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from medsae.io import UserError

TENSOR_NAME = "activations"
BLOCK_BYTES = 1 << 20
ALIGNMENT = 64
RESERVED = "medsae:"
BLOCK_ROWS_KEY = "medsae:block_rows"
CRC_KEY = "medsae:crc32"
CRC_DIGITS = 8

DTYPE_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


@dataclass(frozen=True)
class ShardHeader:
    """What a shard's header says; ``data_offset`` is in bytes from the file's start."""

    n_rows: int
    n_columns: int
    dtype: torch.dtype
    metadata: dict[str, str]
    block_rows: int
    crcs: tuple[str, ...]
    data_offset: int

    @property
    def row_bytes(self) -> int:
        return self.n_columns * self.dtype.itemsize


def rows_per_block(n_columns: int, dtype: torch.dtype) -> int:
    return max(1, BLOCK_BYTES // (n_columns * dtype.itemsize))


def crc_hex(data: memoryview | bytes) -> str:
    return f"{zlib.crc32(data):08x}"


def facts_crc(
    n_rows: int, n_columns: int, dtype: torch.dtype, metadata: Mapping[str, str], block_rows: int
) -> str:
    """Checksum of everything the header states, so that a flipped digit is noticed too."""
    facts = [n_rows, n_columns, DTYPE_NAMES[dtype], block_rows, sorted(metadata.items())]
    return crc_hex(json.dumps(facts).encode())


def encode_header(
    n_rows: int, n_columns: int, dtype: torch.dtype, metadata: Mapping[str, str]
) -> tuple[bytes, int, int]:
    """Return (header with zeroed checksums, offset of the checksums in it, rows per block)."""
    block_rows = rows_per_block(n_columns, dtype)
    n_blocks = -(-n_rows // block_rows)
    placeholder = "0" * CRC_DIGITS * (n_blocks + 1)
    header = {
        "__metadata__": {CRC_KEY: placeholder, BLOCK_ROWS_KEY: str(block_rows), **metadata},
        TENSOR_NAME: {
            "dtype": DTYPE_NAMES[dtype],
            "shape": [n_rows, n_columns],
            "data_offsets": [0, n_rows * n_columns * dtype.itemsize],
        },
    }
    body = json.dumps(header, separators=(",", ":")).encode()
    body += b" " * (-(len(body) + 8) % ALIGNMENT)
    encoded = len(body).to_bytes(8, "little") + body
    return encoded, encoded.index(placeholder.encode()), block_rows


def read_header(path: Path) -> ShardHeader:
    """Parse and check the header of the shard at ``path``.

    A safetensors file written elsewhere is accepted if it holds ``activations`` as a
    matrix of a supported type; it has no checksums, so only its size can be checked.

    Raises ``UserError`` naming the shard if it is missing, truncated or not a shard.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if not 2 <= length <= size - 8:
                raise ValueError("the header runs past the end of the file")
            header = json.loads(handle.read(length))
        parsed = _parse(header, data_offset=8 + length)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such shard; run the step that writes it.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not a readable activation shard ({error}); delete it and write it again."
        ) from None
    expected = parsed.data_offset + parsed.n_rows * parsed.row_bytes
    if size != expected:
        raise UserError(
            f"{path}: the shard is {size} bytes where its header asks for {expected}; "
            "it is truncated or damaged, delete it and write it again."
        )
    return parsed


def _parse(header: dict, data_offset: int) -> ShardHeader:
    tensor = header[TENSOR_NAME]
    n_rows, n_columns = (int(n) for n in tensor["shape"])
    dtype = DTYPES[tensor["dtype"]]
    if tensor["data_offsets"] != [0, n_rows * n_columns * dtype.itemsize]:
        raise ValueError(f"'{TENSOR_NAME}' does not fill the file")
    stored = dict(header.get("__metadata__", {}))
    crc_text = stored.pop(CRC_KEY, "")
    block_rows = int(stored.pop(BLOCK_ROWS_KEY, rows_per_block(n_columns, dtype)))
    crcs: tuple[str, ...] = ()
    if crc_text:
        digits = [crc_text[i : i + CRC_DIGITS] for i in range(0, len(crc_text), CRC_DIGITS)]
        if digits[0] != facts_crc(n_rows, n_columns, dtype, stored, block_rows):
            raise ValueError("the header fails its checksum")
        crcs = tuple(digits[1:])
        if len(crcs) != -(-n_rows // block_rows):
            raise ValueError("the header lacks checksums")
    return ShardHeader(n_rows, n_columns, dtype, stored, block_rows, crcs, data_offset)


def first_non_finite_row(block: torch.Tensor) -> int | None:
    """Row of ``block`` [rows, columns] that first holds NaN or Inf, or None.

    A sum is several times cheaper than a test of every element and cannot hide a NaN or
    an Inf; a finite block whose sum overflows is cleared by the exact test.
    """
    if block.numel() == 0 or bool(torch.isfinite(block.sum(dtype=torch.float32))):
        return None
    bad = ~torch.isfinite(block).all(dim=1)
    return int(bad.nonzero()[0]) if bool(bad.any()) else None
