"""Train from a JSON request, for tests that kill the process or start several."""

import json
import os
import shutil
import sys
from pathlib import Path

import torch

from medsae.sae import SAEConfig, TrainConfig
from medsae.sae.launch import Request, train

FILE_OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")


def copy_before_operations(folder: str, copies: str) -> None:
    """Copy ``folder`` to ``copies``/n just before this process changes a file in it."""
    n, copying = 0, False

    def hook(event, arguments):
        nonlocal n, copying
        if copying or event not in FILE_OPERATIONS or not str(arguments[0]).startswith(folder):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        copying = True
        if Path(folder).exists():
            shutil.copytree(folder, f"{copies}/{n}", ignore=shutil.ignore_patterns("tensorboard"))
        n, copying = n + 1, False

    sys.addaudithook(hook)


if __name__ == "__main__":
    torch.set_num_threads(1)
    request = json.loads(Path(sys.argv[1]).read_text())
    if len(sys.argv) > 2:
        copy_before_operations(request["folder"], sys.argv[2])
    train(
        Request(
            [SAEConfig.from_dict(request["sae"])],
            TrainConfig.from_dict(request["train"]),
            request["train_shards"],
            request["val_shards"],
            [Path(request["folder"])],
        ),
        request.get("processes", 1),
        n_threads=1,
    )
