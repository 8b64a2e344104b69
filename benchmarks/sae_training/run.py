"""Train the same SAE with ours and with every peer, one process at a time, and compare.

    python benchmarks/sae_training/run.py [--steps 200] [--environments FOLDER] [--out FILE]

Peers are installed at the versions in ``requirements/`` into environments of their own, once.
Rates are medians over the undisturbed quarter of the steps (and over all, beside it): on a
shared machine the rest measures the neighbours.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import workload

HERE = Path(__file__).parent
PEERS = ("sparsify", "saelens", "dictionary_learning", "overcomplete")
ARCHITECTURES = {
    "topk": PEERS,
    "batch_topk": ("saelens", "dictionary_learning", "overcomplete"),
    "matryoshka": ("saelens", "dictionary_learning"),
}
COLUMNS = (
    "tokens_per_s",
    "tokens_per_s_all_steps",
    "tokens_per_cpu_s",
    "fvu",
    "dead_fraction",
    "peak_rss_mb",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=workload.Workload().threads)
    parser.add_argument(
        "--by-cpu-time",
        action="store_true",
        help="compare tokens per CPU second: for a busy machine, with --threads 1",
    )
    parser.add_argument("--environments", type=Path, default=HERE.parent / ".envs")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results/sae_training.json")
    parser.add_argument("--only", nargs="*", choices=list(ARCHITECTURES), default=None)
    arguments = parser.parse_args()
    pythons = {peer: environment(peer, arguments.environments) for peer in PEERS}
    architectures = arguments.only or list(ARCHITECTURES)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "activations.safetensors"
        workload.write(data, workload.Workload())
        for trainer, architecture, precision in plan(architectures):
            python = pythons.get(trainer.removeprefix("peer_"), Path(sys.executable))
            result = measure(python, trainer, architecture, precision, data, arguments)
            results.append(result)
            print(line(result), flush=True)
    summary = summarise(results, "tokens_per_cpu_s" if arguments.by_cpu_time else "tokens_per_s")
    for key, value in summary.items():
        if key != "trainers":
            print(f"{key}: {json.dumps(value)}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def plan(architectures: list[str]) -> list[tuple[str, str, str]]:
    """(trainer, architecture, matrix-product precision) in the order they run.

    Ours chooses its products itself; peers are also given torch's fast setting, so that
    they are compared at equal precision too.
    """
    runs = []
    for architecture in architectures:
        if architecture == "topk":
            runs += [("floor", "topk", p) for p in ("highest", "medium")]
            runs += [("ours_bf16", "topk", "highest"), ("dense", "topk", "highest")]
        runs.append(("ours", architecture, "highest"))
        for peer in ARCHITECTURES[architecture]:
            runs += [(f"peer_{peer}", architecture, p) for p in ("highest", "medium")]
    return runs


def environment(peer: str, folder: Path) -> Path:
    """The Python of the peer's environment, made if it is not there."""
    home = folder / peer
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "-r"]
        subprocess.run([*install, str(HERE / "requirements" / f"{peer}.txt")], check=True)
        # the CUDA build on PyPI cannot be imported beside a CPU torch, and nothing needs it
        remove = [str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"]
        subprocess.run(remove, check=True)
        (home / "ready").touch()
    return python


def measure(
    python: Path,
    trainer: str,
    architecture: str,
    precision: str,
    data: Path,
    arguments: argparse.Namespace,
) -> dict:
    out = data.with_name("result.json")
    command = [
        str(python), "measure.py", trainer, "--architecture", architecture,
        "--precision", precision, "--steps", str(arguments.steps), "--threads",
        str(arguments.threads), "--data", str(data), "--out", str(out),
    ]  # fmt: skip
    threads = {"OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1"}
    subprocess.run(
        command, cwd=HERE, env={**os.environ, **threads}, check=True, stderr=subprocess.DEVNULL
    )
    return json.loads(out.read_text(encoding="utf-8"))


def summarise(results: list[dict], measured: str) -> dict:
    """Ratios to the fastest peer of each architecture, and the share of the floor reached."""
    rate = {(r["name"], r["architecture"], r["precision"]): r[measured] for r in results}
    ratios = {}
    for architecture in dict.fromkeys(r["architecture"] for r in results):
        peers = {
            key: value
            for key, value in rate.items()
            if key[0].startswith("peer_") and key[1] == architecture
        }
        default = max(v for k, v in peers.items() if k[2] == "highest")
        entry = {
            "fastest_peer": max(peers, key=peers.get)[0],
            "ours": rate["ours", architecture, "highest"] / max(peers.values()),
            "ours_against_peers_at_default_precision": rate["ours", architecture, "highest"]
            / default,
        }
        if architecture == "topk":
            entry["ours_bf16"] = rate["ours_bf16", "topk", "highest"] / max(peers.values())
            entry["dense_loop"] = rate["ours", "topk", "highest"] / rate["dense", "topk", "highest"]
        ratios[architecture] = entry
    summary = {
        "trainers": [{k: v for k, v in r.items() if k != "workload"} for r in results],
        "compared": measured,
        "ratio_to_fastest_peer": ratios,
        "workload": results[0]["workload"],
    }
    floors = [value for key, value in rate.items() if key[0] == "floor"]
    if floors:
        summary["fraction_of_floor"] = rate["ours", "topk", "highest"] / max(floors)
    return summary


def line(result: dict) -> str:
    numbers = "  ".join(
        f"{column} {result[column]:.3f}" if column in ("fvu", "dead_fraction")
        else f"{column} {result[column]:.0f}"
        for column in COLUMNS
        if result[column] is not None
    )  # fmt: skip
    name = f"{result['name']:26s} {result['architecture']:11s} {result['precision']:8s}"
    return f"{name} {numbers}"


if __name__ == "__main__":
    main()
