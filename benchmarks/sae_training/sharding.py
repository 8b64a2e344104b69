"""What sharing a dictionary among processes costs: latents dealt out, or FSDP2.

    python -m torch.distributed.run --standalone --nproc-per-node=2 \\
        benchmarks/sae_training/sharding.py [--latents 16384] [--width 576] [--batch 1024]

For both, seconds per step beside a step of the same trainer that shares nothing and does the
same share of the work: with half of the latents, and with half of the batch. The difference is
what the sharing costs. FSDP2 is given a plain dense loop, for it needs gradients from autograd.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow" / "scripts"))

from medsae.device import fast_float32_products
from medsae.sae import SAEConfig, TrainConfig, build_sae, parallel
from medsae.sae.initialize import initialize
from medsae.sae.sharding import latents_sharded
from medsae.sae.trainer import Trainer

STEPS = 8


class Dense(nn.Module):
    """A plain dense TopK autoencoder."""

    def __init__(self, n_latents: int, width: int, k: int) -> None:
        super().__init__()
        rows = functional.normalize(torch.randn(n_latents, width), dim=1)
        self.encoder, self.decoder = nn.Parameter(rows), nn.Parameter(rows.clone())
        self.k = k

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        top = (x @ self.encoder.T).topk(self.k, dim=1)
        codes = torch.zeros(x.shape[0], self.encoder.shape[0])
        return codes.scatter(1, top.indices, top.values.relu()) @ self.decoder


def ours(arguments: argparse.Namespace, n_latents: int, x: torch.Tensor):
    model = build_sae(SAEConfig("topk", n_latents, arguments.k, normalization="none"), x.shape[1])
    initialize(model, x, 0)
    train = TrainConfig(n_tokens=10**9, batch_size=len(x), learning_rate=1e-4)
    trainer = Trainer(model, train)
    return lambda: trainer.step(x)


def dense(arguments: argparse.Namespace, x: torch.Tensor, shard: bool):
    model = Dense(arguments.latents, x.shape[1], arguments.k)
    if shard:
        from torch.distributed.fsdp import fully_shard

        fully_shard(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step():
        optimizer.zero_grad()
        functional.mse_loss(model(x), x).backward()
        optimizer.step()

    return step


def seconds(step) -> float:
    """Median of the faster half of the steps: neighbours only ever add to a step."""
    times = []
    for _ in range(STEPS):
        distributed.barrier()
        begin = time.perf_counter()
        step()
        distributed.barrier()
        times.append(time.perf_counter() - begin)
    return statistics.median(sorted(times)[: STEPS // 2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--latents", type=int, default=16_384)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--batch", type=int, default=1_024)
    parser.add_argument("--k", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    n = parallel.world_size()
    torch.manual_seed(0)
    x = torch.randn(arguments.batch, arguments.width)
    with fast_float32_products():
        with latents_sharded(True):  # every process sees the batch and holds its latents
            shared = seconds(ours(arguments, arguments.latents, x))
        alone = seconds_alone(lambda: ours(arguments, arguments.latents // n, x))
        part = x[: len(x) // n]
        fsdp = seconds(dense(arguments, part, shard=True))
        plain = seconds(dense(arguments, part, shard=False))
    if parallel.rank() == 0:
        weights = 2 * arguments.latents * arguments.width * 4 / 1e6
        moved = arguments.batch * (n * arguments.k * 4 + arguments.width * 4) / 1e6
        print(f"{n} processes, {arguments.latents} latents of width {arguments.width}")
        print(f"latents dealt out: {shared:.3f} s per step, {shared - alone:.3f} s of it sharing")
        print(f"FSDP2:             {fsdp:.3f} s per step, {fsdp - plain:.3f} s of it sharing")
        print(f"moved per step and process: {moved:.1f} MB against {3 * weights:.0f} MB")
    distributed.destroy_process_group()


def seconds_alone(make) -> float:
    """Seconds of a step that talks to nobody, with the processes side by side as before."""
    talks = parallel.is_parallel
    parallel.is_parallel = lambda: False
    try:
        return seconds(make())
    finally:
        parallel.is_parallel = talks


if __name__ == "__main__":
    main()
