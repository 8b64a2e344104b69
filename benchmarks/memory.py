"""Peak memory of every large step of the workflow at 1, 4 and 16 times the data.

A chain of real jobs, each script of the workflow in a process of its own, over generated
notes, a tiny language model with random weights and a small autoencoder. Everything that could
grow with the notes does; what stays the same is the model, the autoencoder, the number of
shards and of resamples. Growth is of the peak at 16 times the data over that at once.

    python benchmarks/memory.py [--notes 250] [--scales 1 4 16]
"""

import argparse
import os
import runpy
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import common
import memory_data as data

SHARDS = ["train-00000", "train-00001", "val-00000"]
STATISTICS = {"min_occurrences": 10, "n_permutations": 99, "n_bootstrap": 99, "seed": 0}
EXTRACTION = {
    "dtype": "float32",
    "store_dtype": "float32",
    "quantization": "none",
    "attention": "sdpa",
    "ctx_len": 128,
    "stride": None,
    "trust_remote_code": False,
}
DESCRIBED = {
    "name": "tiny",
    "source": "tiny",
    "random_weights": False,
    **{name: EXTRACTION[name] for name in ("ctx_len", "stride", "dtype", "attention")},
}
PLACE = {"model": "tiny", "layer": "1", "sae": "topk", "shard": "train-00000"}


class Files(SimpleNamespace):
    """Named files, as Snakemake hands them to a script."""

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __iter__(self) -> Any:
        return iter(vars(self).values())


def run_script(name: str, inputs: dict, outputs: dict, params: dict, folder: Path) -> dict:
    """Run a script of the workflow in ``folder``, as a rule would."""
    os.chdir(folder)
    for path in outputs.values():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    job = SimpleNamespace(
        input=Files(**inputs),
        output=Files(**outputs),
        params=Files(**params),
        wildcards=Files(**PLACE),
        config=data.configuration(),
        log=[f"logs/{name}.log"],
        threads=common.THREADS,
        rule=name,
    )
    script = common.ROOT / "workflow" / "scripts" / f"{name}.py"
    try:
        runpy.run_path(str(script), init_globals={"snakemake": job})
    except SystemExit as end:
        raise RuntimeError(f"{name} failed") from end
    return {}


def steps() -> list[tuple[str, dict, dict, dict]]:
    """Script, inputs, outputs and params of every step, in an order in which they can run."""
    shards = [f"activations/{shard}.safetensors" for shard in SHARDS]
    activations = {"activations": "activations/metadata.json"}
    tables = {"latents": "occurrence_latents.parquet"}
    topk = {"topk": ["topk"]}
    sae = {"sae": "calibrated/sae.safetensors", "config": "calibrated/cfg.json"}
    statistics = {"statistics": STATISTICS}
    subject = sae | {"tokens": "tokens", "calibration": "calibrated/calibration.parquet"}
    model = {"source": "tiny", "layer": 1, "extraction": EXTRACTION}
    ablation = model | {"ablation": data.ABLATION} | statistics
    spans = [f"ner/shards/{shard}.jsonl" for shard in SHARDS]
    return [
        (
            "prepare_notes",
            {"notes": "notes.csv"},
            {"notes": "notes.parquet", "summary": "summary.json"},
            {"settings": data.notes_settings()},
        ),
        (
            "prepare_lexicon",
            data.lexicon_files(),
            {"lexicon": "lexicon.csv"},
            {"ner_labels": data.labels()},
        ),
        (
            "tokenize_notes",
            {"notes": "notes.parquet"},
            {"tokens": "tokens"},
            {"shards": SHARDS, "source": "tiny", "trust_remote_code": False},
        ),
        (
            "extract_activations",
            {"tokens": "tokens"},
            {"activations": shards[0]},
            model,
        ),
        (
            "describe_activations",
            {"tokens": "tokens", "activations": shards},
            {"metadata": activations["activations"]},
            {"model": DESCRIBED, "corpus": {}, "seed": 0},
        ),
        (
            "train_sae",
            activations,
            {"latest": "sae/latest.safetensors"},
            {"sae": data.sae_settings(), "checkpoints": "checkpoints", "seed": 0},
        ),
        (
            "calibrate_sae",
            {"sae": "sae/latest.safetensors", **activations},
            sae | {"calibration": "calibrated/calibration.parquet"},
            {"quantile": 0.999},
        ),
        (
            "export_topk",
            {"tokens": "tokens", **activations, **sae},
            {"topk": "topk"},
            {"shards": SHARDS, "k": data.K, "unfinished": "checkpoints/topk"},
        ),
        (
            "merge_ner_spans",
            {"spans": spans},
            {"spans": "ner/ner_spans.jsonl", "table": "ner/ner_spans.parquet"},
            {},
        ),
        (
            "align_spans",
            {"spans": spans, "tokens": "tokens"},
            {"spans": "aligned.jsonl", "table": "aligned.parquet"},
            {},
        ),
        (
            "find_occurrences",
            {
                "notes": "notes.parquet",
                "lexicon": "lexicon.csv",
                "spans": "ner/ner_spans.parquet",
                "gold": "gold_senses.csv",
            },
            {"occurrences": "occurrences.parquet", "agreement": "agreement.csv"},
            {"sense_source": "gold", "n_bootstrap": 99, "seed": 0},
        ),
        (
            "locate_occurrences",
            {"occurrences": "occurrences.parquet", "tokens": "tokens"},
            {"occurrences": "occurrence_tokens.parquet"},
            {},
        ),
        (
            "pool_occurrence_latents",
            {"occurrences": "occurrence_tokens.parquet", **topk},
            tables,
            {"pooling": "last", "k": data.K},
        ),
        (
            "write_topk_csv",
            {"occurrences": "occurrence_tokens.parquet", "notes": "notes.parquet", **topk},
            {"table": "topk_latents.csv"},
            {"k": data.K},
        ),
        (
            "measure_jaccard",
            tables,
            {"published": "published.csv", "terms": "terms.csv", "pairs": "pairs.parquet"},
            {"k": [10, 20], **statistics},
        ),
        (
            "measure_training_gain",
            {"trained": tables["latents"], "untrained": tables["latents"]},
            {"gain": "gain.csv"},
            statistics,
        ),
        (
            "measure_entropy",
            tables | {"calibration": "calibrated/calibration.parquet"},
            {"entropy": "entropy.csv"},
            statistics,
        ),
        ("find_sense_linked_latents", tables, {"linked": "linked.csv"}, statistics),
        (
            "probe_latents",
            tables | {"linked": "linked.csv"},
            {"single": "single.csv", "senses": "sense_probes.csv"},
            statistics,
        ),
        (
            "measure_retrieval",
            tables | activations | {"notes": "notes.parquet"},
            {"detail": "detail.csv", "summary": "sweep.csv", "baselines": "baselines.csv"},
            {"retrieval": data.retrieval_settings(), **statistics},
        ),
        (
            "ablate_latents",
            tables | subject | {"linked": "linked.csv"},
            {"deltas": "deltas.csv", "summary": "ablation.csv"},
            ablation | {"parts": "checkpoints/ablation"},
        ),
        (
            "measure_faithfulness",
            subject,
            {"faithfulness": "faithfulness.csv"},
            ablation | {"random_weights": True},  # the tiny model never learned anything
        ),
        (
            "build_viewer",
            {
                **topk,
                "notes": "notes.parquet",
                "spans": "aligned.parquet",
                "calibration": "calibrated/calibration.parquet",
                "linked": "linked.csv",
                "probes": "single.csv",
            },
            {"top_tokens": "top_tokens.csv", "pack": "pack.json"},
            {},
        ),
    ]


def main() -> None:
    """Run the chain at every scale; print and write the peaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notes", type=int, default=250)
    parser.add_argument("--scales", type=int, nargs="+", default=[1, 4, 16])
    arguments = parser.parse_args()
    entries: dict[str, dict[str, Any]] = {}
    for scale in arguments.scales:
        with common.folder() as folder:
            sizes = data.generate(folder, arguments.notes * scale)
            print(f"\n{scale}×: {sizes}", flush=True)
            for name, inputs, outputs, params in steps():
                work = partial(run_script, name, inputs, outputs, params)
                for shard in SHARDS if name == "extract_activations" else SHARDS[:1]:
                    if name == "extract_activations":
                        work = partial(extract, shard, outputs, params)
                    found = common.measure(common.Side(read=_same, work=work), folder)
                    peak = max(found["peak_mib"], entries.get(name, {}).get(str(scale), 0))
                    entries.setdefault(name, {})[str(scale)] = round(peak)
                print(f"{name:28}{peak:8.0f} MiB{found['seconds']:8.1f} s", flush=True)
                if name == "prepare_notes":
                    data.write_spans(folder)
        common.save("memory", {"notes_at_scale_1": arguments.notes, "peak_mib": entries})
    print("\n" + data.table(entries, [str(scale) for scale in arguments.scales]))


def extract(shard: str, outputs: dict, params: dict, folder: Path) -> dict:
    """The extraction of one shard."""
    PLACE["shard"] = shard
    path = {"activations": f"activations/{shard}.safetensors"}
    return run_script("extract_activations", {"tokens": "tokens"}, outputs | path, params, folder)


def _same(folder: Path) -> Path:
    return folder


if __name__ == "__main__":
    main()
