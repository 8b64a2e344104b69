"""Where the time of a training step goes: our trainer under Python's profiler.

    python benchmarks/sae_training/step_profile.py [--architecture topk] [--trainer ours_bf16]

Prints milliseconds per step of each function, its callees not counted; torch's and numpy's own
functions are listed by their names. The profiler itself adds a few percent.
"""

import argparse
import cProfile
import importlib
import pstats
from pathlib import Path

import torch
import workload

WARM_UP, STEPS, SHOWN = 10, 40, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trainer", default="ours", choices=["ours", "ours_bf16"])
    parser.add_argument("--architecture", default="topk")
    parser.add_argument("--threads", type=int, default=workload.Workload().threads)
    arguments = parser.parse_args()
    load = workload.Workload(n_train=40 * 2_048, threads=arguments.threads)
    torch.set_num_threads(load.threads)
    torch.manual_seed(load.seed)
    train, _ = workload.make(load)
    batches = train.split(load.batch_size)
    trainer = importlib.import_module(f"trainers.{arguments.trainer}")
    step, _ = trainer.make(arguments.architecture, train, load)
    for number in range(WARM_UP):
        step(batches[number % len(batches)])
    profile = cProfile.Profile()
    profile.enable()
    for number in range(STEPS):
        step(batches[number % len(batches)])
    profile.disable()
    own = {
        name(*function): 1e3 * numbers[2] / STEPS
        for function, numbers in pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]
    }
    print(f"{sum(own.values()):8.1f} ms per step")
    for function, milliseconds in sorted(own.items(), key=lambda item: -item[1])[:SHOWN]:
        print(f"{milliseconds:8.1f}    {function}")


def name(path: str, line: int, function: str) -> str:
    """``folder/file.py:line function``; of what is not written in Python its name alone."""
    return function if path == "~" else f"{'/'.join(Path(path).parts[-2:])}:{line} {function}"


if __name__ == "__main__":
    main()
