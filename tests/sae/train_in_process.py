"""Train from a JSON request, for tests that kill the process or start several."""

import json
import sys
from pathlib import Path

import torch

from medsae.sae import SAEConfig, TrainConfig
from medsae.sae.launch import Request, train

if __name__ == "__main__":
    torch.set_num_threads(1)
    request = json.loads(Path(sys.argv[1]).read_text())
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
