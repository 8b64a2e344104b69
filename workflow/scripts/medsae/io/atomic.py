"""Outputs appear whole or not at all."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and rename it over ``path`` on success.

    The temporary file keeps the suffix of ``path``, so that writers which look at it
    still see it. If the body raises, the temporary file is removed and ``path`` is
    left as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that takes its place when all went well.

    A folder that is there is moved aside first and removed last: whenever the process is
    killed, ``path`` is the old folder, the new one, or, for the moment between two renames,
    missing, and then the next call brings the old one back. One process writes a folder.
    """
    target = Path(path)
    aside = target.with_name(f".{target.name}.old")
    if aside.exists() and not target.exists():
        aside.replace(target)
    shutil.rmtree(aside, ignore_errors=True)
    remove_leftovers(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if target.exists():
            target.replace(aside)
        temporary.replace(target)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what processes that were killed while they wrote ``path`` left beside it.

    Not for a path that another process may be writing at this moment.
    """
    target = Path(path)
    # not those of a neighbour with a longer name
    file = rf"\.{re.escape(target.stem)}\.\d+\.tmp{re.escape(target.suffix)}"
    folder = rf"\.{re.escape(target.name)}\.\d+\.tmp"
    for stale in target.parent.glob(".*.tmp*"):
        if re.fullmatch(folder, stale.name) and stale.is_dir():
            shutil.rmtree(stale, ignore_errors=True)
        elif re.fullmatch(file, stale.name):
            stale.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented UTF-8 JSON, atomically, with keys in the given order.

    Raises ``ValueError`` for NaN and infinities, which JSON cannot hold.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
        )
