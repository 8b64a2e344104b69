"""Train from a JSON request, for tests that kill the process or start several."""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from medsae.sae import SAEConfig, TrainConfig
from medsae.sae.launch import Request, train

FILE_OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")


def die_before_operation(number: int, folder: str) -> None:
    """SIGKILL this process just before it changes a file in ``folder`` for the n-th time."""
    left = number

    def hook(event, arguments):
        nonlocal left
        if event not in FILE_OPERATIONS or not str(arguments[0]).startswith(folder):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    torch.set_num_threads(1)
    request = json.loads(Path(sys.argv[1]).read_text())
    if len(sys.argv) > 2:
        die_before_operation(int(sys.argv[2]), request["folder"])
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
