"""What the README says about messages is what the programs say."""

import re
from pathlib import Path

import pytest
import snakemake
import snakemake_executor_plugin_slurm

ROOT = Path(__file__).parents[2]
PROGRAMS = (
    ROOT / "workflow/scripts",
    Path(snakemake.__file__).parent / "persistence",
    Path(snakemake.__file__).parent / "exceptions.py",
    Path(snakemake_executor_plugin_slurm.__file__).parent / "__init__.py",
)


def table() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (rows,) = re.findall(r"\| message begins \| meaning \|\n\|---\|---\|\n((?:\|.*\n)+)", text)
    return re.findall(r"^\| `([^`]+)` \|", rows, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def said() -> str:
    """All sources, with strings that are written in pieces put together."""
    files = [file for place in PROGRAMS for file in [place, *place.rglob("*.py")] if file.is_file()]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    text = re.sub(r'"\s*\n\s*f?"', "", text)
    return re.sub(r"\{[^{}]*\}", "…", text)


@pytest.mark.parametrize("message", table())
def test_a_message_of_the_table_is_one_that_is_said(said: str, message: str):
    words = [part.strip() for part in re.split("…|: ", message) if part.strip()]
    assert words
    for part in words:
        assert part in said, part
