"""A name for what some work depends on, so that finished parts of it can be trusted."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def fingerprint(files: Iterable[str | Path], *settings: object) -> str:
    """Sixteen hexadecimal digits of the content of ``files`` and of the ``settings``' repr."""
    digest = hashlib.sha256(repr(settings).encode())
    for path in files:
        with Path(path).open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:16]
