"""SAEs of one group through the real rules, on a tiny store that a stand-in extracts."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SNAKEFILE = """
include: "rules/common.smk"

rule extract_activations:
    output:
        activations=L.layer("activations/{shard}.safetensors"),
    shell:
        "cp store/{wildcards.shard}.safetensors {output}"

rule tokenize_notes:
    output:
        tokens=directory(L.model("tokens")),
    shell:
        "exit 1"

include: "rules/sae.smk"
"""
MODEL = {
    "name": "tiny",
    "source": "nowhere",
    "layers": [1],
    "store_dtype": "float32",
    "size": {"parameters_b": 0.001, "n_layers": 2, "d_model": 24},
}
LAYER = "results/demo/tiny/layer-1"


@pytest.fixture
def folder(shards, tmp_path):
    """A folder with the rules, the store, and a configuration without SAEs."""
    place = tmp_path / "workflow-folder"
    (place / "store").mkdir(parents=True)
    for name, path in zip(("train-00000", "val-00000"), (shards[0][0], shards[1][0]), strict=True):
        (place / "store" / f"{name}.safetensors").write_bytes(path.read_bytes())
    for name in ("workflow", "rules", "envs"):
        (place / name).symlink_to(ROOT / name)
    (place / "Snakefile").write_text(SNAKEFILE)
    config = yaml.safe_load((ROOT / "config/test.yaml").read_text())
    config["corpus"] |= {"shards": 1, "val_shards": 1}
    config["models"] = [MODEL]
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    return place


def sae(name, steps=20, **changes):
    training = {
        "n_tokens": 256 * steps,
        "batch_size": 256,
        "learning_rate": 3e-3,
        "checkpoint_every": 20,
    }
    settings = {"name": name, "n_latents": 96, "k": 3, "together": "sweep", "training": training}
    return settings | changes


def start(folder, saes, *arguments):
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"saes": saes}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    targets = [f"{LAYER}/{each['name']}/calibrated/sae.safetensors" for each in saes]
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "config.yaml"]
    return subprocess.Popen(
        [*command, "--rerun-incomplete", *arguments, *targets],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def jobs(folder, saes, *arguments):
    """How many jobs of each rule ran, or with ``-n`` would run."""
    process = start(folder, saes, *arguments)
    out = process.communicate()[0]
    assert process.returncode == 0, out
    found = dict(re.findall(r"^(\w+) +(\d+)$", out, re.MULTILINE))
    found.pop("total", None)
    return {rule: int(count) for rule, count in found.items()}


def test_one_that_joins_its_group_later_is_the_only_one_that_runs(folder):
    a, b, alone = sae("a"), sae("b", k=4), sae("alone", k=2, together=None)
    first = jobs(folder, [a, b, alone])
    assert first == {
        "extract_activations": 2, "train_saes": 1, "train_sae": 3, "calibrate_sae": 3
    }  # fmt: skip
    batch = next((folder / LAYER / "together").glob("*.done")).stem
    assert len(batch.split("-")) == 2
    assert jobs(folder, [a, b, alone], "-n") == {}

    only_one = {"train_saes": 1, "train_sae": 1, "calibrate_sae": 1}
    assert jobs(folder, [a, b | {"k": 5}, alone], "-n") == only_one
    # the one trained by itself joins too, and has nothing to do
    joined = [a, b, alone | {"together": "sweep"}, sae("c", k=5)]
    outputs = {path: path.stat().st_mtime_ns for path in (folder / LAYER).glob("*/*/*.safetensors")}
    assert jobs(folder, joined) == only_one
    assert all(path.stat().st_mtime_ns == before for path, before in outputs.items())
    new = [path for path in (folder / LAYER / "together").glob("*.done") if path.stem != batch]
    assert len(new) == 1 and "-" not in new[0].stem
    assert jobs(folder, joined, "-n") == {}


def training_process(folder):
    """The process id of the job that runs in ``folder``."""
    for status in Path("/proc").glob("[0-9]*"):
        try:
            command = (status / "cmdline").read_bytes()
            here = (status / "cwd").resolve() == folder
        except OSError:
            continue
        if here and b".snakemake/scripts" in command and b"train_saes" in command:
            return int(status.name)
    return None


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the job through /proc")
def test_a_killed_job_goes_on_with_every_member(folder):
    saes = [sae("a", steps=2000), sae("b", steps=2000, k=4)]
    process = start(folder, saes)
    states = [f"{LAYER}/{each['name']}/checkpoints/*/*/step_*" for each in saes]
    while not all(list(folder.glob(pattern)) for pattern in states):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    os.kill(training_process(folder), signal.SIGKILL)
    process.communicate()
    assert process.returncode != 0
    assert not list((folder / LAYER / "together").glob("*.done"))

    assert jobs(folder, saes) == {"train_saes": 1, "train_sae": 2, "calibrate_sae": 2}
    (log,) = (folder / "results/demo/logs/train_saes").glob("*.log")
    assert log.read_text().count("going on from step") == 2
