"""The scripts of this room's rules, run as Snakemake runs them, on a small planted study."""

import json
import logging
import runpy
from types import SimpleNamespace

import polars as pl
import pytest
import torch

from medsae.config.ner_section import NER_LABELS
from medsae.polysemy import columns
from medsae.store import ShardWriter


class Files(SimpleNamespace):
    """Named files, with what Snakemake's have: ``get``, and a way through them."""

    def __iter__(self):
        return iter(vars(self).values())

    def get(self, name, default=None):
        return getattr(self, name, default)


@pytest.fixture
def run(pytestconfig, tmp_path):
    level, handlers = logging.root.level, logging.root.handlers[:]

    def script(name, inputs, outputs, **params):
        outputs = {key: str(tmp_path / value) for key, value in outputs.items()}
        snakemake = SimpleNamespace(
            input=Files(**inputs),
            output=Files(**outputs),
            params=SimpleNamespace(**params),
            wildcards=SimpleNamespace(model="tiny", layer="3", sae="topk"),
            log=[str(tmp_path / "logs" / f"{name}.log")],
            threads=1,
            rule=name,
        )
        path = pytestconfig.rootpath / "workflow" / "scripts" / f"{name}.py"
        runpy.run_path(str(path), init_globals={"snakemake": snakemake})
        return outputs

    yield script
    for handler in logging.root.handlers:
        handler.close()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def test_lexicon_and_occurrences(run, tmp_path, pytestconfig):
    (tmp_path / "lexicon.csv").write_text(
        "term,sense,forms,domain_regexes,exclude_regexes\n"
        "discharge,administrative,discharged,home,\ndischarge,clinical,,purulent,\n"
    )
    (tmp_path / "controls.csv").write_text("term\nbiopsy\n")
    made = run(
        "prepare_lexicon",
        {
            "lexicon": str(tmp_path / "lexicon.csv"),
            "controls": str(tmp_path / "controls.csv"),
            "sense_labels": str(pytestconfig.rootpath / "config" / "sense_labels.yaml"),
        },
        {"lexicon": "polysemy_lexicon.csv"},
        ner_labels=list(NER_LABELS),
    )
    pl.DataFrame(
        {"doc_id": ["a"], "patient_id": ["p"], "split": ["train"], "text": ["Discharged home"]}
    ).write_parquet(tmp_path / "notes.parquet")
    schema = {"doc_id": pl.String, "start": pl.Int64, "end": pl.Int64}
    pl.DataFrame(schema=schema | {"entity_group": pl.String, "score": pl.Float32}).write_parquet(
        tmp_path / "spans.parquet"
    )
    inputs = {
        "notes": str(tmp_path / "notes.parquet"),
        "lexicon": made["lexicon"],
        "spans": str(tmp_path / "spans.parquet"),
        "gold": [],
    }
    outputs = {"occurrences": "occurrences.parquet", "agreement": "sense_agreement.csv"}
    settings = {"sense_source": "gold", "n_bootstrap": 99, "seed": 1}
    made = run("find_occurrences", inputs, outputs, **settings)
    occurrences = pl.read_parquet(made["occurrences"])
    assert occurrences.columns == list(columns.OCCURRENCES)
    assert occurrences["sense"].to_list() == ["administrative"]
    assert pl.read_csv(made["agreement"]).columns == list(columns.AGREEMENT)
    gold = tmp_path / "gold.csv"
    gold.write_text("doc_id,start,end,term,sense\na,0,10,discharge,clinical\n")
    made = run("find_occurrences", inputs | {"gold": str(gold)}, outputs, **settings)
    assert pl.read_parquet(made["occurrences"])["sense"].to_list() == ["clinical"]
    gold.write_text("doc_id,start,end,term\n")
    with pytest.raises(SystemExit):
        run("find_occurrences", inputs | {"gold": str(gold)}, outputs, **settings)


def test_metrics(run, plant, write_latents, tmp_path, statistics, monkeypatch):
    monkeypatch.setattr("medsae.polysemy.sense_probes.N_SHUFFLES", 9)
    table = plant({"lemma": "split", "strength": 0.5}, {"lemma": "control", "kind": "control"})
    latents = str(write_latents(table))
    pl.DataFrame({"latent_id": range(300), "firing_count": [1] * 300}).write_parquet(
        tmp_path / "calibration.parquet"
    )
    shard = tmp_path / "train-00000.safetensors"
    metadata = tmp_path / "metadata.json"
    metadata.write_text(json.dumps({"shards": {shard.stem: {}}}))
    with ShardWriter(shard, len(table), 4, torch.float32, {}) as writer:
        writer.write(0, torch.arange(4.0 * len(table)).reshape(-1, 4) % 7)
    table.select("doc_id").unique(maintain_order=True).with_columns(
        pl.lit("word " * 500).alias("text")
    ).write_parquet(tmp_path / "notes.parquet")

    jaccard = run(
        "measure_jaccard",
        {"latents": latents},
        {"published": "cross.csv", "terms": "at_k.csv", "pairs": "pairs.parquet"},
        k=[4, 8],
        statistics=statistics,
    )
    assert pl.read_csv(jaccard["terms"]).columns == list(columns.JACCARD_AT_K)
    assert pl.read_csv(jaccard["published"]).columns == list(columns.JACCARD_CROSS_SENSE)
    assert pl.read_parquet(jaccard["pairs"]).columns == list(columns.JACCARD_PAIRS)
    entropy = run(
        "measure_entropy",
        {"latents": latents, "calibration": str(tmp_path / "calibration.parquet")},
        {"entropy": "entropy.csv"},
        statistics=statistics,
    )
    assert pl.read_csv(entropy["entropy"]).columns == list(columns.ENTROPY)
    linked = run(
        "find_sense_linked_latents",
        {"latents": latents},
        {"linked": "linked.csv"},
        statistics=statistics,
    )
    assert pl.read_csv(linked["linked"]).columns == list(columns.SENSE_LINKED)
    probes = run(
        "probe_latents",
        {"latents": latents, "linked": linked["linked"]},
        {"single": "single.csv", "senses": "senses.csv"},
        statistics=statistics,
    )
    assert pl.read_csv(probes["single"]).columns == list(columns.SINGLE_PROBES)
    assert pl.read_csv(probes["senses"]).columns == list(columns.SENSE_PROBES)
    retrieval = run(
        "measure_retrieval",
        {
            "latents": latents,
            "notes": str(tmp_path / "notes.parquet"),
            "activations": str(metadata),
        },
        {"detail": "detail.csv", "summary": "summary.csv", "baselines": "baselines.csv"},
        retrieval={"k_sweep": [5, 10], "n_anchor_sweep": [2]},
        statistics=statistics,
    )
    assert pl.read_csv(retrieval["detail"]).columns == list(columns.RETRIEVAL_DETAIL)
    assert pl.read_csv(retrieval["summary"]).columns == list(columns.RETRIEVAL_SUMMARY)
    assert pl.read_csv(retrieval["baselines"]).columns == list(columns.RETRIEVAL_BASELINES)
    gain = run(
        "measure_training_gain",
        {"trained": latents, "untrained": latents},
        {"gain": "gain.csv"},
        statistics=statistics,
    )
    assert pl.read_csv(gain["gain"]).columns == list(columns.TRAINING_GAIN)
    part = tmp_path / "topk/part-0000"
    part.mkdir(parents=True)
    codes = table.select("latent_ids", "z_values", "z_values_norm")
    codes.write_parquet(part / "train-00000.parquet")
    table.drop(codes.columns).write_parquet(tmp_path / "located.parquet")
    compared = run(
        "compare_poolings",
        {"occurrences": str(tmp_path / "located.parquet"), "topk": [str(part)]},
        {"poolings": "poolings.csv"},
        pooling="last",
        k=16,
        depth=8,
        statistics=statistics,
    )
    assert pl.read_csv(compared["poolings"]).columns == list(columns.POOLING)
