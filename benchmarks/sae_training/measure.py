"""Run one trainer on a workload, in this process, and write what was measured as JSON.

    python measure.py TRAINER --architecture topk --workload JSON --data FILE --out FILE

A trainer module in ``trainers/`` has ``make(architecture, train, load)``, which returns
``step(batch)`` and ``evaluate(rows) -> (reconstruction, codes > 0)``.
"""

import argparse
import importlib
import json
import statistics
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch
import workload

EVALUATION_ROWS = 1_024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trainer")
    parser.add_argument("--architecture", default="topk")
    parser.add_argument("--precision", default="highest", choices=["highest", "medium"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--workload", type=json.loads, default={}, help="what differs, as JSON")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    load = workload.Workload(**arguments.workload)
    torch.set_num_threads(load.threads)
    torch.manual_seed(load.seed)
    # copies: pages of the mapped file would count as the trainer's memory when first touched
    train, held_out = (rows.clone().to(load.device) for rows in workload.read(arguments.data))
    batches = train.split(load.batch_size)[: load.n_train // load.batch_size]
    module = importlib.import_module(f"trainers.{arguments.trainer}")
    on_gpu = torch.device(load.device).type == "cuda"
    is_fast = arguments.precision == "medium"
    if is_fast:
        torch.set_float32_matmul_precision("medium")
    reset_peak_memory(on_gpu)
    base = memory_mb(on_gpu, peak=False)
    step, evaluate = module.make(arguments.architecture, train, load)
    seconds, cpu_seconds = [], []
    for number in range(arguments.steps):
        begin, cpu_begin = time.perf_counter(), time.process_time()
        # the fast setting of a GPU is bfloat16, as sparsify's own trainer has it
        with torch.autocast("cuda", torch.bfloat16, enabled=on_gpu and is_fast):
            step(batches[number % len(batches)])
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
        cpu_seconds.append(time.process_time() - cpu_begin)
    peak = memory_mb(on_gpu, peak=True) - base
    result = {
        "name": arguments.trainer,
        "architecture": arguments.architecture,
        "precision": arguments.precision,
        "steps": arguments.steps,
        "threads": load.threads,
        "selection": getattr(step, "selection", None),
        "date": datetime.now(UTC).date().isoformat(),
        **rates(seconds, load.batch_size),
        "tokens_per_cpu_s": load.batch_size / statistics.median(cpu_seconds),
        **quality(evaluate, held_out),
        "peak_rss_mb": peak,
        "workload": asdict(load),
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def rates(seconds: list[float], batch_size: int) -> dict[str, float]:
    """Tokens per second: median over all steps, and over the undisturbed (fastest) quarter."""
    undisturbed = sorted(seconds)[: max(1, len(seconds) // 4)]
    return {
        "tokens_per_s": batch_size / statistics.median(undisturbed),
        "tokens_per_s_all_steps": batch_size / statistics.median(seconds),
    }


def quality(evaluate, rows: torch.Tensor) -> dict[str, float | None]:
    """FVU about the mean, active latents per row, and the share that fire on no held-out row."""
    if evaluate is None:
        return {"fvu": None, "l0": None, "dead_fraction": None}
    error, n_active, fired = 0.0, 0, None
    with torch.no_grad():
        for part in rows.split(EVALUATION_ROWS):
            reconstruction, active = evaluate(part)
            error += float((reconstruction - part).double().square().sum())
            n_active += int(active.sum())
            fired = active.any(0) if fired is None else fired | active.any(0)
    variance = float((rows.double() - rows.double().mean(0)).square().sum())
    l0 = n_active / len(rows)
    return {"fvu": error / variance, "l0": l0, "dead_fraction": float((~fired).double().mean())}


def reset_peak_memory(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory_mb(on_gpu: bool, peak: bool) -> float:
    """Memory of this process, or of its tensors on the GPU: now, or at its peak."""
    if on_gpu:
        used = torch.cuda.max_memory_allocated if peak else torch.cuda.memory_allocated
        return used() / 2**20
    field = "VmHWM" if peak else "VmRSS"
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


if __name__ == "__main__":
    main()
