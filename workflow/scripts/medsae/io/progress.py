"""Progress of long work: a bar on a terminal, a line now and then in a log."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0

logger = logging.getLogger("medsae")


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` unchanged while showing how far the work called ``what`` is.

    On a terminal this is a tqdm bar; elsewhere a log line at most every ten seconds and
    one at the end, so that a cluster's log file stays readable.
    """
    if sys.stderr.isatty():
        yield from tqdm(items, desc=what, total=total, dynamic_ncols=True)
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    begin = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            logger.info("%s: %s", what, _state(done, total, now - begin))
    logger.info("%s: %s", what, _state(done, total, time.monotonic() - begin))


def _state(done: int, total: int | None, seconds: float) -> str:
    share = f"/{total} ({100 * done / total:.0f}%)" if total else ""
    left = f", {seconds * (total - done) / done:.0f} s left" if total and 0 < done < total else ""
    return f"{done}{share} in {seconds:.0f} s{left}"
