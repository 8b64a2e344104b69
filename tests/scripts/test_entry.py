"""A job that fails says where and what kind of error, never the error's message."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from medsae.io import UserError

CPU = Path("/proc/cpuinfo")
# Shapes of which 1 and 2 threads give other bits, measured with MKL on AVX-512.
PRODUCTS = """
import runpy
import sys
from types import SimpleNamespace

entry, log, asked = sys.argv[1:]
snakemake = SimpleNamespace(log=[log], output=[], threads=2, rule="r")
with runpy.run_path(entry)["job"](snakemake, same_for_any_threads=bool(asked)):
    import torch

    changed = 0
    for m, k, n in [(1, 576, 97), (7, 576, 576), (100, 1536, 576), (512, 1536, 160)]:
        left, right, products = torch.randn(m, k), torch.randn(n, k), []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            products.append(left @ right.T)
        changed += not torch.equal(*products)
    print(changed)
"""
ENTRY = Path(__file__).parents[2] / "workflow/scripts/entry.py"


def a_job(log: Path, *output: Path) -> SimpleNamespace:
    return SimpleNamespace(log=[log], output=output, threads=1, rule="r")


def fail(log: Path, error: Exception) -> str:
    job = runpy.run_path(str(ENTRY))["job"]
    with pytest.raises(SystemExit) as stopped, job(a_job(log)):
        raise error
    assert stopped.value.code == 1
    return log.read_text()


def test_an_unexpected_error_is_placed_but_not_quoted(tmp_path):
    text = fail(tmp_path / "a.log", ValueError("cell 'Mr Confidential'"))
    assert "ValueError in r" in text
    assert "test_entry.py" in text
    assert "Confidential" not in text


def test_a_user_error_is_told_in_its_own_words(tmp_path):
    text = fail(tmp_path / "b.log", UserError("row 3: give the note an id"))
    assert "Error in r: row 3: give the note an id" in text


def test_what_a_killed_job_left_of_its_outputs_is_removed(tmp_path):
    job = runpy.run_path(str(ENTRY))["job"]
    half = [tmp_path / ".a.12.tmp.csv", tmp_path / ".made.12.tmp"]
    other = tmp_path / ".b.12.tmp.csv"
    for path in (half[0], half[1] / "x", other):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    with job(a_job(tmp_path / "c.log", tmp_path / "a.csv", tmp_path / "made")):
        assert not any(path.exists() for path in half)
    assert other.exists()  # another job may be writing it


def changed_by_threads(log: Path, asked: str) -> int:
    environment = {key: value for key, value in os.environ.items() if key != "MKL_CBWR"}
    done = subprocess.run(
        [sys.executable, "-c", PRODUCTS, str(ENTRY), str(log), asked],
        capture_output=True,
        text=True,
        check=True,
        env=environment | {"PYTHONPATH": str(ENTRY.parent)},
    )
    return int(done.stdout)


@pytest.mark.skipif(
    not CPU.exists() or not {"GenuineIntel", "avx2"} <= set(CPU.read_text().split()),
    reason="MKL promises it on Intel's processors",
)
def test_products_do_not_depend_on_threads_where_that_is_asked_for(tmp_path):
    if not changed_by_threads(tmp_path / "d.log", ""):
        pytest.skip("these products do not depend on threads here anyway")
    assert changed_by_threads(tmp_path / "e.log", "yes") == 0
