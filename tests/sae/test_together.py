"""SAEs of one group through the real rules, on a tiny store that a stand-in extracts."""

import json
import os
import re
import subprocess
import sys
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

rule describe_activations:
    input:
        activations=shards(rules.extract_activations.output.activations),
    output:
        metadata=L.layer("activations/metadata.json"),
    shell:
        "cp store/metadata.json {output}"

include: "rules/sae.smk"
"""
# For the processes of one run: dies, as if killed, when the first member has a training state.
KILLING = """
import os
import signal

replace = os.replace


def replace_and_die(source, target, **more):
    replace(source, target, **more)
    if os.path.basename(target).startswith("step_"):
        os.kill(os.getpid(), signal.SIGKILL)


os.replace = replace_and_die
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
    described = {name: {"tokens": 1000} for name in ("train-00000", "val-00000")}
    (place / "store/metadata.json").write_text(json.dumps({"shards": described}))
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


def start(folder, saes, *arguments, **environment):
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"saes": saes}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    targets = [f"{LAYER}/{each['name']}/calibrated/sae.safetensors" for each in saes]
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "config.yaml"]
    return subprocess.Popen(
        [*command, "--rerun-incomplete", *arguments, *targets],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
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
    a, alone = sae("a"), sae("alone", k=2, together=None)
    # architecture, size, λ and seed differ
    options = {"l1_coefficient": 0.01}
    b = sae("b", k=4) | {"architecture": "relu", "n_latents": 64, "options": options, "seed": 5}
    first = jobs(folder, [a, b, alone])
    assert first == {
        "extract_activations": 2, "describe_activations": 1, "train_saes": 1, "train_sae": 3,
        "calibrate_sae": 3,
    }  # fmt: skip
    # one run each: what the group trained, of these training and validation shards, is found
    assert len(list((folder / LAYER).glob("*/checkpoints/*/*"))) == 3
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


def test_a_killed_job_goes_on_with_every_member(folder, tmp_path):
    saes = [sae("a", steps=60), sae("b", steps=60, k=4)]
    (tmp_path / "sitecustomize.py").write_text(KILLING)
    process = start(folder, saes, PYTHONPATH=str(tmp_path))
    out = process.communicate()[0]
    assert process.returncode != 0, out
    states = folder.glob(f"{LAYER}/*/checkpoints/*/*/step_*")
    assert [path.relative_to(folder / LAYER).parts[0] for path in states] == ["a"]
    assert not list(folder.glob(f"{LAYER}/*/checkpoints/*/*/train_metrics.parquet"))
    assert not list((folder / LAYER / "together").glob("*.done"))

    alone = [each | {"name": f"{each['name']}-alone", "together": None} for each in saes]
    expected = {"train_saes": 1, "train_sae": 4, "calibrate_sae": 4}
    assert jobs(folder, [*saes, *alone]) == expected
    (log,) = (folder / "results/demo/logs/train_saes").glob("*.log")
    assert log.read_text().count("going on from step 20") == 1
    for each in saes:
        resumed, whole = (
            folder / LAYER / name / "sae/best.safetensors"
            for name in (each["name"], f"{each['name']}-alone")
        )
        assert resumed.read_bytes() == whole.read_bytes()
