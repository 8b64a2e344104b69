"""Conda environments and pip requirements state the same versions, in specs conda accepts."""

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

rattler = pytest.importorskip("rattler")

ROOT = Path(__file__).parents[2]
ENVS = sorted((ROOT / "envs").glob("*.yaml"))
SCRIPTS = ROOT / "workflow/scripts"
# triton comes with torch where there is CUDA, and is imported only there.
OPTIONAL = {"bitsandbytes", "snakemake", "triton"}
DISTRIBUTION = {
    "PIL": "pillow",
    "SimpleITK": "simpleitk",
    "pydantic_core": "pydantic",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
CONDA_TO_PIP = {"matplotlib-base": "matplotlib"}
WITHOUT_PIP = re.compile(r"^(python|pip|c-compiler|r-.*)$")


def pip_pins(name: str) -> dict[str, str]:
    """Package -> version of a requirements file; fails on anything but an exact pin."""
    lines = (ROOT / name).read_text().splitlines()
    return dict(pinned(line) for line in lines if line and not line.startswith("#"))


def pinned(line: str) -> tuple[str, str]:
    requirement = Requirement(line)
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", f"{line} is no exact pin"
    return requirement.name.lower(), specifier.version


def dependencies(env: Path) -> tuple[list[str], list[str]]:
    """(conda specs, pip requirements) of an environment file."""
    conda, pip = [], []
    for entry in yaml.safe_load(env.read_text())["dependencies"]:
        if isinstance(entry, dict):
            pip += entry["pip"]
        else:
            conda.append(entry)
    return conda, pip


@pytest.mark.parametrize("env", ENVS, ids=lambda path: path.stem)
def test_every_conda_line_is_a_valid_spec_with_an_exact_version(env):
    conda, pip = dependencies(env)
    for line in conda:
        spec = rattler.MatchSpec(line, strict=True)
        name = spec.name.normalized
        if name in ("pip", "c-compiler"):
            continue
        assert spec.version is not None, f"{env.name}: {line} has no version"
        assert name == "python" or (line.count("=") == 1 and re.search(r"=\d[\w.]*$", line))
    assert ("pip" in conda) == bool(pip), f"{env.name}: pip section and pip go together"


@pytest.mark.parametrize("env", ENVS, ids=lambda path: path.stem)
def test_an_environment_has_the_versions_of_the_requirements(env):
    pins = pip_pins("requirements.txt")
    conda, pip = dependencies(env)
    stated = dict(map(pinned, pip))
    for line in conda:
        name, _, version = line.partition("=")
        if not WITHOUT_PIP.match(name):
            stated[CONDA_TO_PIP.get(name, name)] = version
    assert stated == {name: pins.get(name, "not in requirements.txt") for name in stated}


def test_conda_forge_is_the_only_channel():
    for env in ENVS:
        assert yaml.safe_load(env.read_text())["channels"] == ["conda-forge", "nodefaults"]


def test_every_environment_is_used_by_a_rule_and_every_rule_names_one_that_exists():
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    named = set(re.findall(r'"\.\./envs/(\w+\.yaml)"', rules))
    assert named == {env.name for env in ENVS}


@pytest.mark.parametrize(
    "name",
    [
        "requirements.txt",
        "requirements-dev.txt",
        "requirements-scans.txt",
        "requirements-weights.txt",
    ],
)
def test_requirements_are_exact_pins_and_name_no_index(name):
    assert pip_pins(name)
    assert "://" not in (ROOT / name).read_text()


def direct_imports(path: Path) -> set[str]:
    """Absolute modules imported when a script runs, or when a module of the library is loaded.

    Imports inside the library's functions are not counted: some of its modules serve both
    jobs with torch and jobs without.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree) if path.parent == SCRIPTS else tree.body:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def third_party(path: Path, seen: set[Path]) -> set[str]:
    """Top-level packages that running a script imports, through the modules of ours."""
    seen.add(path)
    packages = set()
    for module in direct_imports(path):
        parts = module.split(".")
        if parts[0] not in ("medsae", "entry"):
            packages.add(parts[0])
            continue
        for depth in range(1, len(parts) + 1):
            place = SCRIPTS.joinpath(*parts[:depth])
            for file in (place.with_suffix(".py"), place / "__init__.py"):
                if file.exists() and file not in seen:
                    packages |= third_party(file, seen)
    return packages - set(sys.stdlib_module_names) - OPTIONAL


def test_every_environment_has_what_its_scripts_import():
    pairs = set()
    for rules in (ROOT / "rules").glob("*.smk"):
        block = re.compile(r"envs/(\w+)\.yaml\"(?:(?!\n\s*rule ).)*?scripts/(\w+)\.py\"", re.DOTALL)
        pairs |= set(block.findall(rules.read_text()))
    assert len(pairs) > 10
    lacking = set()
    for env, script in sorted(pairs):
        path = SCRIPTS / f"{script}.py"
        assert path.exists(), f"a rule names {script}.py, which does not exist"
        conda, pip = dependencies(ROOT / "envs" / f"{env}.yaml")
        has = {line.partition("=")[0] for line in (*conda, *pip)}
        has |= {CONDA_TO_PIP.get(name, name) for name in has}
        needed = {DISTRIBUTION.get(name, name) for name in third_party(path, set())}
        lacking |= {(env, name, script) for name in needed - has}
    assert not lacking, sorted(lacking)


def test_every_import_of_the_library_is_a_stated_requirement():
    needed = set().union(*(third_party(path, set()) for path in SCRIPTS.rglob("*.py")))
    pins = pip_pins("requirements.txt")
    missing = {name for name in needed if DISTRIBUTION.get(name, name) not in pins}
    assert not missing, f"not in requirements.txt: {sorted(missing)}"
