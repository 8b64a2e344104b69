"""Named tensors in one safetensors file, with a checksum for each and a JSON note."""

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from medsae.io import UserError, atomic_path

METADATA_KEY = "medsae"
NOTE_KEY = "note"
CRC_KEY = "crc32"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> None:
    """Write ``tensors`` and the JSON ``note`` to ``path``, atomically."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    note_text = json.dumps(note)
    crcs = {name: _crc(tensor) for name, tensor in sorted(held.items())}
    crcs[NOTE_KEY] = zlib.crc32(note_text.encode())
    # One key: safetensors writes several in an order that changes from run to run.
    sealed = json.dumps({NOTE_KEY: note_text, CRC_KEY: crcs})
    with atomic_path(path) as temporary:
        save_file(held, temporary, {METADATA_KEY: sealed})


def load_tensors(
    path: Path, keep: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_tensors`` wrote; of every tensor what ``keep`` returns.

    Raises ``UserError`` naming the file if it is missing, truncated or fails a checksum.
    """
    try:
        with safe_open(path, framework="pt") as file:
            sealed = json.loads((file.metadata() or {})[METADATA_KEY])
            crcs = sealed[CRC_KEY]
            note = json.loads(sealed[NOTE_KEY])
            tensors, found = {}, {NOTE_KEY: zlib.crc32(sealed[NOTE_KEY].encode())}
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                found[name] = _crc(tensor)
                tensors[name] = keep(name, tensor)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; run the step that writes it.") from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: not a readable checkpoint ({error}); delete it to go on from the one before."
        ) from None
    names = found.keys() | crcs.keys()
    if bad := sorted(name for name in names if found.get(name) != crcs.get(name)):
        raise UserError(
            f"{path}: '{bad[0]}' fails its checksum; the file is damaged, delete it to go on "
            "from the one before."
        )
    return tensors, note


def _crc(tensor: Tensor) -> int:
    data = tensor.reshape(-1).view(torch.uint8) if tensor.numel() else torch.empty(0)
    return zlib.crc32(data.numpy().data)
