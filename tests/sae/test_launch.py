"""Several processes: none outlives the job, and all are heard in its log."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import medsae
from medsae.io import UserError
from medsae.sae.launch import Request, train
from medsae.sae.sharding import is_needed

SCRIPT = Path(__file__).with_name("train_in_process.py")
PATIENCE = 900  # seconds; waits end as soon as what they wait for is so


def processes_about(text):
    """Process ids whose command line holds ``text``, this one's left out."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if text.encode() in command and int(folder.name) != os.getpid():
            found.add(int(folder.name))
    return found


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_a_job_killed_with_sigkill_leaves_no_process_behind(
    shards, sae_config, train_config, tmp_path
):
    folder = tmp_path / "run"
    request = tmp_path / "arguments.json"
    request.write_text(
        json.dumps(
            {
                "sae": sae_config().to_dict(),
                "train": train_config(10**6).to_dict(),
                "train_shards": [str(path) for path in shards[0]],
                "val_shards": [str(path) for path in shards[1]],
                "folder": str(folder),
                "processes": 2,
            }
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(medsae.__file__).parents[1])}
    job = subprocess.Popen(
        [sys.executable, SCRIPT, request], env=environment, start_new_session=True
    )
    try:
        wait_until(lambda: job.poll() is not None or list(folder.glob("step_*")))
        assert job.poll() is None
        assert len(processes_about(str(folder))) == 3  # torchrun and its two workers
        os.kill(job.pid, signal.SIGKILL)
        job.wait(PATIENCE)
        wait_until(lambda: not processes_about(str(folder)))
    finally:
        job.kill()
        for process in processes_about(str(folder)):
            os.kill(process, signal.SIGKILL)


@pytest.mark.slow
def test_what_workers_say_is_in_the_log_of_the_job(
    shards, sae_config, train_config, tmp_path, caplog
):
    caplog.set_level(logging.INFO, "medsae")
    train(Request([sae_config()], train_config(50), *shards, [tmp_path / "run"]), 2, 2)
    assert "run: step 50, FVU" in caplog.text
    caplog.clear()
    damaged = shards[0][0]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(UserError, match=damaged.name):
        train(Request([sae_config()], train_config(50), *shards, [tmp_path / "two"]), 2, 2)


def test_a_worker_that_fails_otherwise_fails_the_job_with_its_traceback_in_the_log(
    shards, sae_config, train_config, tmp_path, caplog
):
    caplog.set_level(logging.INFO, "medsae")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "cfg.json").mkdir()  # where a file has to go
    with pytest.raises(RuntimeError, match="2 processes ended with 1"):
        train(Request([sae_config()], train_config(50), *shards, [tmp_path / "run"]), 2, 2)
    assert "IsADirectoryError" in caplog.text


def test_processes_share_latents_that_are_too_large_for_one(monkeypatch):
    large, small = (10**9, 8192, False, torch.device("cpu")), (96, 24, True, torch.device("cpu"))
    assert not is_needed(*large)  # there is one process
    monkeypatch.setattr("medsae.sae.parallel.is_parallel", lambda: True)
    assert is_needed(*large)
    assert not is_needed(*small)
