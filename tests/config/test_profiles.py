"""The profiles load, and the plan of the full-size studies prints without a network."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from medsae.config.layout import SHARDS_PER_PART

ROOT = Path(__file__).parents[2]
RULES = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "rules").glob("*.smk")))


def dry_run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess:
    """`snakemake -n` from the repository root, where no connection can be made."""
    lonely = ["unshare", "--net"] if os.geteuid() == 0 and _can_unshare() else []
    command = [*lonely, sys.executable, "-m", "snakemake", "-n", *arguments]
    command += ["--config", f"results_dir={tmp_path / 'results'}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def _can_unshare() -> bool:
    try:
        return subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("name", ["medgemma-27b", "openbiollm-70b", "both-models"])
def test_the_full_size_plan_prints_on_slurm(tmp_path, name):
    shown = dry_run(tmp_path, "--profile", "slurm", "all", "--configfile", f"config/{name}.yaml")
    assert shown.returncode == 0, shown.stderr
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", shown.stdout, flags=re.MULTILINE))
    raw = yaml.safe_load((ROOT / f"config/{name}.yaml").read_text(encoding="utf-8"))
    shards = raw["corpus"]["shards"] + raw["corpus"]["val_shards"]
    models = len(raw["models"])
    assert int(jobs["recognise_entities"]) == shards
    assert int(jobs["extract_activations"]) == models * shards
    assert int(jobs["tokenize_notes"]) == models
    assert int(jobs["export_topk"]) == models * math.ceil(shards / SHARDS_PER_PART)
    assert (int(jobs["train_sae"]), int(jobs["fit_mixed_effects"])) == (models, 1)


def test_the_workstation_profile_loads(tmp_path):
    shown = dry_run(tmp_path, "--profile", "profiles/workstation", "all")
    assert shown.returncode == 0, shown.stderr


def test_retries_are_set_where_a_retry_is_a_new_request():
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8"))
    assert profile["retries"] >= 1
    assert not re.search(r"^\s+retries:", RULES, flags=re.MULTILINE)


def test_the_site_is_edited_in_one_place():
    mentions = {
        path.name
        for path in (*ROOT.glob("config/*.yaml"), *ROOT.glob("rules/*.smk"), ROOT / "Snakefile")
        if re.search("slurm_(partition|account)", path.read_text(encoding="utf-8"))
    }
    assert not mentions
    assert (ROOT / "slurm" / "config.yaml").samefile(ROOT / "profiles/slurm/config.yaml")


def test_the_rules_named_for_gpus_are_those_that_ask_for_them():
    blocks = re.split(r"^\s*rule ", RULES, flags=re.MULTILINE)[1:]
    asking = {block.partition(":")[0] for block in blocks if re.search(r"\bgpu=", block)}
    profile = (ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8")
    named = set(re.findall(r"^#   (\w+): [&*]gpu", profile, flags=re.MULTILINE))
    assert named == asking


@pytest.mark.parametrize("configuration", ["medgemma-27b", "config"])
def test_the_site_block_loads_when_its_lines_are_uncommented(tmp_path, configuration):
    lines = (ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8").splitlines()
    site = [
        re.sub(r"^( *)# ( *[\w-]+:(?: [&*\w]+)?)$", r"\1\2", line)
        for line in lines
        if "software-deployment" not in line
    ]
    profile = yaml.safe_load("\n".join(site))
    assert profile["default-resources"]["slurm_account"] == "my_account"
    gpu = {"slurm_partition": "gpu", "gpu_model": "h100"}
    assert all(resources == gpu for resources in profile["set-resources"].values())
    assert profile["slurm-status-command"] == "squeue"
    (tmp_path / "config.yaml").write_text("\n".join(site))
    configfile = f"config/{configuration}.yaml"
    shown = dry_run(tmp_path, "--profile", str(tmp_path), "all", "--configfile", configfile)
    assert shown.returncode == 0, shown.stderr
