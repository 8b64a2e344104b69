"""Two processes on CPU (gloo) against one, through torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import medsae
from medsae.sae import load_sae
from medsae.sae.train import METRICS_NAME

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("train_in_process.py")
TOLERANCE = 2e-4  # largest difference of a weight after 60 steps, from the order of sums


def train(tmp_path, folder, sae, config, shards, processes):
    request = tmp_path / f"{folder}-{processes}.json"
    request.write_text(
        json.dumps(
            {
                "sae": sae.to_dict(),
                "train": config.to_dict(),
                "train_shards": [str(p) for p in shards[0]],
                "val_shards": [str(p) for p in shards[1]],
                "folder": str(tmp_path / folder),
            }
        )
    )
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(medsae.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [*launch, str(SCRIPT), str(request)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return tmp_path / folder


def difference(one, two, name="latest.safetensors"):
    first, second = load_sae(one / name).state_dict(), load_sae(two / name).state_dict()
    return max(float((first[key] - second[key]).abs().max()) for key in first)


@pytest.mark.parametrize("architecture", ["topk", "batch_topk"])
def test_two_processes_train_what_one_trains(
    shards, sae_config, train_config, tmp_path, architecture
):
    sae = sae_config(architecture=architecture, k_aux=8)
    config = train_config(60, dead_after_tokens=1500)
    one = train(tmp_path, "one", sae, config, shards, 1)
    two = train(tmp_path, "two", sae, config, shards, 2)
    assert difference(one, two) < TOLERANCE
    columns = ["step", "l0", "dead_fraction"]
    alone, shared = (pl.read_parquet(run / METRICS_NAME) for run in (one, two))
    assert alone.select(columns).equals(shared.select(columns))
    assert alone["fvu"].to_list() == pytest.approx(shared["fvu"].to_list(), rel=1e-3)
    assert alone["val_fvu"].drop_nulls().to_list() == pytest.approx(
        shared["val_fvu"].drop_nulls().to_list(), rel=1e-3
    )


def test_one_process_goes_on_from_two(shards, sae_config, train_config, tmp_path):
    sae, config = sae_config(), train_config(60, checkpoint_every=30, keep_last=5)
    whole = train(tmp_path, "whole", sae, config, shards, 1)
    folder = train(tmp_path, "mixed", sae, config, shards, 2)
    for name in ("step_0000000060.safetensors", "latest.safetensors", "best.safetensors"):
        (folder / name).unlink()
    train(tmp_path, "mixed", sae, config, shards, 1)
    assert difference(whole, folder) < TOLERANCE
