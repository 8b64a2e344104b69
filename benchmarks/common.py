"""What the benchmarks share: two sides in processes of their own, one printed line, one file."""

import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))


@dataclass(frozen=True)
class Side:
    """One side of a task.

    ``read``   what is read before the clock starts
    ``work``   the task; returns the ``share`` of it that was done, by which its time is scaled,
               and numbers about what was done
    ``check``  what came of it, after the clock; must be the same on both sides
    """

    read: Callable[[Path], Any]
    work: Callable[[Any], dict[str, Any]]
    check: Callable[[Any], Any] | None = None


SIDES = ("library", "straightforward")
THREADS = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
HEADER = f"{'task':24}{'straightforward':>18}{'library':>12}{'ratio':>9}{'MiB':>16}"


def compare(name: str, straightforward: Side | None, library: Side, path: Path) -> dict[str, Any]:
    """Measure both sides of a task, print its line and return its entry."""
    entry: dict[str, Any] = {"threads": THREADS, "library": measure(library, path)}
    if straightforward is not None:
        entry["straightforward"] = measure(straightforward, path)
        checks = [entry[side].pop("check", None) for side in SIDES]
        if checks[0] != checks[1]:
            raise SystemExit(f"{name}: the two sides differ")
        entry["ratio"] = entry["straightforward"]["seconds"] / entry["library"]["seconds"]
    print(_line(name, entry), flush=True)
    return entry


def measure(side: Side, path: Path) -> dict[str, Any]:
    """Run one side in a fresh process: seconds (of all the work), peak_mib, what it did."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_run, (side, path))


def _run(side: Side, path: Path) -> dict[str, Any]:
    data = side.read(path)
    begin = time.perf_counter()
    done = side.work(data)
    measured = time.perf_counter() - begin
    peak = peak_mib()
    if side.check is not None:
        done["check"] = side.check(data)
    seconds = measured / done.pop("share", 1.0)
    return {"seconds": seconds, "measured_seconds": measured, "peak_mib": peak, **done}


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for generated data."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def save(name: str, entries: dict[str, Any]) -> None:
    """Add ``entries`` to ``results/NAME.json``, other tasks of an earlier run kept."""
    path = RESULTS / f"{name}.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results | entries, indent=2) + "\n")


def peak_mib() -> float:
    """Peak memory of this process. getrusage would add what its parent held when it forked."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS
    (line,) = (row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _line(name: str, entry: dict[str, Any]) -> str:
    ours, theirs = entry["library"], entry.get("straightforward")
    if theirs is None:
        return f"{name:24}{'':18}{ours['seconds']:10.2f} s{'':9}{ours['peak_mib']:16.0f}"
    scaled = "*" if theirs["seconds"] != theirs["measured_seconds"] else " "
    memory = f"{theirs['peak_mib']:.0f} / {ours['peak_mib']:.0f}"
    return (
        f"{name:24}{theirs['seconds']:15.2f} s{scaled}{ours['seconds']:10.2f} s"
        f"{entry['ratio']:8.1f}x{memory:>16}"
    )
