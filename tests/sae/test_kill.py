"""A process that is killed with SIGKILL and started again, as on a cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import medsae
from medsae.sae import load_sae, train_sae

SCRIPT = Path(__file__).with_name("train_in_process.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(medsae.__file__).parents[1])}


@pytest.fixture
def one_thread(set_threads):
    """As in `SCRIPT`."""
    set_threads(1)


def start(request, *arguments):
    return subprocess.Popen([sys.executable, SCRIPT, request, *arguments], env=ENVIRONMENT)


def write_request(tmp_path, folder, sae, train, shards):
    path = tmp_path / f"{folder}.json"
    path.write_text(
        json.dumps(
            {
                "sae": sae.to_dict(),
                "train": train.to_dict(),
                "train_shards": [str(p) for p in shards[0]],
                "val_shards": [str(p) for p in shards[1]],
                "folder": str(tmp_path / folder),
            }
        )
    )
    return path


def test_a_killed_process_goes_on_to_the_same_bits(shards, sae_config, train_config, tmp_path):
    sae = sae_config(architecture="batch_topk", k_aux=8)
    train = train_config(
        600, checkpoint_every=20, validate_every=100, dead_after_tokens=2000, ema=0.95
    )
    assert start(write_request(tmp_path, "whole", sae, train, shards)).wait(900) == 0

    request, folder = write_request(tmp_path, "killed", sae, train, shards), tmp_path / "killed"
    for kill_after in (1, 4):  # checkpoints seen before each kill
        process = start(request)
        seen = set(folder.glob("step_*"))
        fresh: set[Path] = set()
        while len(fresh) < kill_after and process.poll() is None:
            fresh |= set(folder.glob("step_*")) - seen
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
        assert not (folder / "latest.safetensors").exists()
    assert start(request).wait(900) == 0
    assert_same_saes(tmp_path / "whole", folder)


def assert_same_saes(one, two):
    for name in ("best.safetensors", "latest.safetensors"):
        whole, killed = load_sae(one / name), load_sae(two / name)
        for key, value in whole.state_dict().items():
            assert value.equal(killed.state_dict()[key]), key


@pytest.mark.slow
def test_killed_before_any_change_of_a_file_it_goes_on_to_the_same_bits(
    shards, sae_config, train_config, tmp_path, one_thread
):
    sae = sae_config(architecture="batch_topk", k_aux=8)
    train = train_config(
        120, checkpoint_every=20, validate_every=40, keep_last=2, dead_after_tokens=2000, ema=0.95
    )
    request = write_request(tmp_path, "whole", sae, train, shards)
    assert start(request, str(tmp_path / "copies")).wait(300) == 0
    left = {path.name for path in (tmp_path / "whole").iterdir()}
    copies = sorted((tmp_path / "copies").iterdir())
    found = set()
    for folder in copies:
        files = sorted(folder.rglob("*"))
        state = tuple((path.relative_to(folder), path.stat().st_size) for path in files)
        if state in found:
            continue
        found.add(state)
        train_sae(sae, train, *shards, folder)
        assert_same_saes(tmp_path / "whole", folder)
        assert {path.name for path in folder.iterdir()} | {"tensorboard"} == left
    assert len(found) > 20
