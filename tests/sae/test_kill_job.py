"""The rule's script under Snakemake: its job, then everything, killed with SIGKILL."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from medsae.sae import load_sae
from medsae.sae.validate import validate
from medsae.store import ActivationStore

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FILES = ("best.safetensors", "latest.safetensors", "cfg.json", "best_meta.json")
SNAKEFILE = """
rule train_sae:
    input:
        activations="activations/metadata.json",
    output:
        expand("{{{{sae}}}}/{{name}}", name={files}),
    log:
        "{{sae}}/train.log",
    params:
        sae={settings},
        checkpoints="checkpoints",
        seed=3,
    script:
        {script!r}
"""


@pytest.fixture
def workflow(shards, train_config, tmp_path):
    """A function that makes a folder with the real script as its only rule."""
    config = yaml.safe_load((ROOT / "config/test.yaml").read_text())
    (sae,) = config["saes"][:1]
    sae["training"] = {"checkpoint_every": 20, "log_every": 25, "validate_every": 100}
    training = train_config(600, dead_after_tokens=2000, ema=0.95).to_dict()
    for key in ("seed", "log_every", "checkpoint_every", "keep_last", "reader_threads"):
        del training[key]
    training["validate_every"] = 100
    settings = {"architecture": "batch_topk", "n_latents": 96, "k": 3, "k_aux": 8}
    settings["training"] = training

    def make(name, processes):
        sae["processes"] = processes
        folder = tmp_path / name
        (folder / "activations").mkdir(parents=True)
        described = {}
        for split, paths in zip(("train", "val"), shards, strict=True):
            for number, path in enumerate(paths):
                described[f"{split}-{number:05d}"] = {}
                (folder / f"activations/{split}-{number:05d}.safetensors").symlink_to(path)
        (folder / "activations/metadata.json").write_text(json.dumps({"shards": described}))
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        script = str(ROOT / "workflow/scripts/train_sae.py")
        (folder / "Snakefile").write_text(
            SNAKEFILE.format(files=list(FILES), settings=settings, script=script)
        )
        return folder, f"{sae['name']}/best.safetensors"

    return make


def snakemake(folder, *arguments):
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "config.yaml"]
    return subprocess.Popen(
        [*command, "--rerun-incomplete", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def training_process(folder):
    """The process id of the job that runs in ``folder``."""
    for status in Path("/proc").glob("[0-9]*"):
        try:
            command = (status / "cmdline").read_bytes()
            here = (status / "cwd").resolve() == folder
        except OSError:
            continue
        if here and b".snakemake/scripts" in command and command.startswith(b"/"):
            return int(status.name)
    return None


def wait_for_a_new_state(folder, process):
    seen = set(folder.glob("checkpoints/*/step_*"))
    while set(folder.glob("checkpoints/*/step_*")) <= seen:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.005)


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the job through /proc")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_job_killed_twice_ends_with_the_same_files(workflow, shards, processes):
    whole, target = workflow("whole", processes)
    process = snakemake(whole, target)
    out = process.communicate()[0]
    assert process.returncode == 0, out

    folder, _ = workflow("killed", processes)
    process = snakemake(folder, target)  # the job alone: Snakemake sees it fail and cleans up
    wait_for_a_new_state(folder, process)
    os.kill(training_process(folder), signal.SIGKILL)
    assert process.wait(300) != 0
    assert not (folder / target).exists()
    assert list(folder.glob("checkpoints/*/step_*"))

    process = snakemake(folder, target)  # job and Snakemake at once: a lock stays behind
    wait_for_a_new_state(folder, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    time.sleep(0.5)
    assert not (folder / target).exists()
    assert snakemake(folder, "--unlock").wait(300) == 0

    process = snakemake(folder, target)
    out = process.communicate()[0]
    assert process.returncode == 0, out
    assert "going on from step" in (folder / Path(target).parent / "train.log").read_text()
    for name in FILES:
        place = Path(target).with_name(name)
        assert (whole / place).read_bytes() == (folder / place).read_bytes(), name
    told = json.loads((folder / target).with_name("best_meta.json").read_text())
    sae = load_sae(folder / target)
    seen, held_out = (validate(sae, ActivationStore(paths), 10**6).quality.fvu for paths in shards)
    assert told["val_fvu"] == pytest.approx(held_out, rel=1e-6)
    assert told["val_fvu"] != pytest.approx(seen, rel=1e-3)
