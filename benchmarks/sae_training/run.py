"""Train the same SAE with ours and with every peer, one process at a time, and compare.

    python benchmarks/sae_training/run.py [--steps 200] [--environments FOLDER] [--out FILE]

On a GPU, or at another size:

    python benchmarks/sae_training/run.py --device cuda --d-model 5376 --latents 65536 --k 128

(ours, the plain loop, the floor and sparsify, which is the peer with CUDA kernels of its own); this
is written to a file of its own.

With ``--architectures``, ``--trainers`` or ``--precisions`` only those are measured, and take the
place of the same measurements in FILE; the ratios are then made again from all that FILE holds.

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
from dataclasses import asdict, fields, replace
from pathlib import Path

import workload
from peers import ENVIRONMENTS, PEERS, environment

HERE = Path(__file__).parent
ON_CUDA = ("floor", "ours", "ours_bf16", "dense", "peer_sparsify")
ARCHITECTURES = {
    "topk": PEERS,
    "batch_topk": ("saelens", "dictionary_learning", "overcomplete"),
    "matryoshka": ("saelens", "dictionary_learning"),
}
PRECISIONS = ("highest", "medium")  # of peers' products: torch's default, and its fast setting
COLUMNS = (
    "tokens_per_s",
    "tokens_per_s_all_steps",
    "tokens_per_cpu_s",
    "fvu",
    "l0",
    "dead_fraction",
    "peak_rss_mb",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    usual = workload.Workload()
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=usual.threads)
    parser.add_argument("--device", default=usual.device, help="cpu or cuda")
    parser.add_argument("--rows", type=int, default=usual.n_train, dest="n_train")
    parser.add_argument("--d-model", type=int, default=usual.d_model)
    parser.add_argument("--latents", type=int, default=usual.n_latents, dest="n_latents")
    parser.add_argument("--k", type=int, default=usual.k)
    parser.add_argument("--batch", type=int, default=usual.batch_size, dest="batch_size")
    parser.add_argument(
        "--by-cpu-time",
        action="store_true",
        help="compare tokens per CPU second: for a busy machine, with --threads 1",
    )
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--architectures", nargs="+", choices=list(ARCHITECTURES))
    parser.add_argument("--trainers", nargs="+", help="as they are named in trainers/")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    arguments = parser.parse_args()
    sizes = {field.name for field in fields(usual)} & vars(arguments).keys()
    load = replace(usual, **{name: getattr(arguments, name) for name in sizes})
    arguments.out = arguments.out or HERE.parent / "results" / file_name(load)
    trainers = arguments.trainers or (ON_CUDA if load.device != "cpu" else None)
    architectures = arguments.architectures or list(ARCHITECTURES)
    runs = [
        run
        for run in plan(architectures)
        if (trainers is None or run[0] in trainers) and run[2] in arguments.precisions
    ]
    peers = dict.fromkeys(run[0].removeprefix("peer_") for run in runs if run[0][:5] == "peer_")
    pythons = {peer: environment(peer, arguments.environments) for peer in peers}
    measured = "tokens_per_cpu_s" if arguments.by_cpu_time else "tokens_per_s"
    chosen = (arguments.architectures, arguments.trainers)
    is_whole = chosen == (None, None) and set(arguments.precisions) == set(PRECISIONS)
    results = {} if is_whole else earlier(arguments.out, measured, arguments.steps, load)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "activations.safetensors"
        workload.write(data, load)
        for run in runs:
            python = pythons.get(run[0].removeprefix("peer_"), Path(sys.executable))
            results[run] = measure(python, *run, data, arguments.steps, load)
            print(line(results[run]), flush=True)
            summary = summarise(list(results.values()), measured)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    for key, value in summary.items():
        if key != "trainers":
            print(f"{key}: {json.dumps(value)}")


def file_name(load: workload.Workload) -> str:
    """``sae_training.json``; at another size or device a file that names both."""
    usual = replace(workload.Workload(), threads=load.threads)
    if load == usual:
        return "sae_training.json"
    size = f"{load.n_latents}x{load.d_model}_k{load.k}_batch{load.batch_size}_rows{load.n_train}"
    return f"sae_training_{load.device}_{size}.json"


def earlier(
    path: Path, measured: str, steps: int, load: workload.Workload
) -> dict[tuple[str, str, str], dict]:
    """The measurements that ``path`` holds, if they were made the same way."""
    if not path.exists():
        return {}
    summary = json.loads(path.read_text(encoding="utf-8"))
    if "data_seed" not in summary["workload"]:  # rows of other data
        return {}
    before = workload.Workload(**summary["workload"])
    if summary["compared"] != measured or replace(before, threads=load.threads) != load:
        return {}
    return {
        (r["name"], r["architecture"], r["precision"]): {**r, "workload": summary["workload"]}
        for r in summary["trainers"]
        if r["steps"] == steps
    }


def plan(architectures: list[str]) -> list[tuple[str, str, str]]:
    """(trainer, architecture, matrix-product precision) in the order they run.

    Ours chooses its products itself; peers are also given torch's fast setting, so that
    they are compared at equal precision too.
    """
    runs = []
    for architecture in architectures:
        if architecture == "topk":
            runs += [("floor", "topk", p) for p in PRECISIONS]
            runs += [("ours_bf16", "topk", "highest"), ("dense", "topk", "highest")]
        runs.append(("ours", architecture, "highest"))
        for peer in ARCHITECTURES[architecture]:
            runs += [(f"peer_{peer}", architecture, p) for p in PRECISIONS]
    return runs


def measure(
    python: Path,
    trainer: str,
    architecture: str,
    precision: str,
    data: Path,
    steps: int,
    load: workload.Workload,
) -> dict:
    out = data.with_name("result.json")
    command = [
        str(python), "measure.py", trainer, "--architecture", architecture,
        "--precision", precision, "--steps", str(steps), "--workload", json.dumps(asdict(load)),
        "--data", str(data), "--out", str(out),
    ]  # fmt: skip
    threads = {"OMP_NUM_THREADS": str(load.threads), "HF_HUB_OFFLINE": "1"}
    subprocess.run(
        command, cwd=HERE, env={**os.environ, **threads}, check=True, stderr=subprocess.DEVNULL
    )
    return json.loads(out.read_text(encoding="utf-8"))


def summarise(results: list[dict], measured: str) -> dict:
    """Ratios to the fastest peer of each architecture, and the share of the floor reached.

    The fastest peer is the fastest at either precision; ratios to the peers as they come are
    given apart. What has not been measured is left out.
    """
    rate = {(r["name"], r["architecture"], r["precision"]): r[measured] for r in results}
    fastest, ratios, at_default = {}, {}, {}
    for architecture in ARCHITECTURES:
        peers = {k: v for k, v in rate.items() if k[0][:5] == "peer_" and k[1] == architecture}
        default = [value for key, value in peers.items() if key[2] == "highest"]
        for name, label in (("ours", architecture), ("ours_bf16", f"{architecture}_bf16")):
            ours = rate.get((name, architecture, "highest"))
            if ours and default:
                fastest[architecture] = max(peers, key=peers.__getitem__)[0]
                ratios[label] = ours / max(peers.values())
                at_default[label] = ours / max(default)
    summary = {
        "trainers": [{k: v for k, v in r.items() if k != "workload"} for r in results],
        "compared": measured,
        "fastest_peer": fastest,
        "ratio_to_fastest_peer": ratios,
        "ratio_to_fastest_peer_at_default_precision": at_default,
        "workload": results[0]["workload"],
    }
    ours = rate.get(("ours", "topk", "highest"))
    floors = [value for key, value in rate.items() if key[0] == "floor"]
    if ours and floors:
        summary["fraction_of_floor"] = ours / max(floors)
    if ours and (dense := rate.get(("dense", "topk", "highest"))):
        summary["ratio_to_dense_loop"] = ours / dense
    return summary


def line(result: dict) -> str:
    numbers = "  ".join(
        f"{column} {result[column]:.3f}" if column in ("fvu", "l0", "dead_fraction")
        else f"{column} {result[column]:.0f}"
        for column in COLUMNS
        if result[column] is not None
    )  # fmt: skip
    name = f"{result['name']:26s} {result['architecture']:11s} {result['precision']:8s}"
    return f"{name} {numbers}"


if __name__ == "__main__":
    main()
