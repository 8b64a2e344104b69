"""The shrunken study, end to end: what it made, that it adds up, and what makes it run again."""

import json
import re
from pathlib import Path

import polars as pl
import pytest
import torch
from scipy.stats import wilcoxon

from medsae.sae import load_sae
from medsae.sae.interchange import load_saelens
from medsae.store import open_shard
from tests.e2e.conftest import run_snakemake

pytestmark = pytest.mark.slow

CORPUS = Path("results/demo")
MODEL = CORPUS / "smollm2-135m"
LAYER = MODEL / "layer-6"
SAE = LAYER / "topk-1024"
SHARDS = ["train-00000", "train-00001", "val-00000"]

TABLES = {
    CORPUS / "notes/notes.parquet": ["doc_id", "patient_id", "text", "split", "shard"],
    CORPUS / "polysemy_lexicon.csv": ["term", "sense", "domain_regexes", "exclude_regexes"],
    CORPUS / "ner/ner_spans.parquet": ["doc_id", "start", "end", "entity_group", "score"],
    CORPUS / "ner/ner_evaluation.csv": ["label", "precision", "recall", "f1"],
    CORPUS / "occurrences.parquet": ["doc_id", "lemma", "char_start", "char_end", "sense"],
    CORPUS / "sense_agreement.csv": ["lemma", "kappa"],
    SAE / "sae/train_metrics.parquet": ["fvu", "l0"],
    SAE / "topk_latents.csv": [
        *("doc_id", "layer", "model", "token_str", "lemma", "position", "batch_idx", "token_id"),
        *("K", "latent_ids_json", "z_values_json", "z_values_norm_json", "char_start", "char_end"),
    ],
    SAE / "viewer/top_tokens_per_latent.csv": ["latent_id"],
    SAE / "viewer/probes/single_latent_probes.csv": [
        *("latent_id", "w", "b", "ce_val", "auroc", "ap"),
    ],
    SAE / "metrics/jaccard_cross_sense.csv": [
        *("lemma", "sense1", "sense2", "mean_jaccard", "median_jaccard", "std_jaccard"),
        *("n_pairs", "n_samples_sense1", "n_samples_sense2", "layer", "model"),
    ],
    SAE / "metrics/entropy_per_sense.csv": [
        *("lemma", "sense", "entropy", "normalized_entropy", "n_occurrences"),
        *("n_unique_latents", "layer", "model"),
    ],
    SAE / "metrics/sense_linked_latents.csv": [
        *("lemma", "sense", "latent_id", "n_hits", "n_sense_total", "presence_rate"),
        *("n_lemma_hits", "n_lemma_total", "n_other_hits", "n_other_total"),
        *("presence_rate_other", "presence_rate_diff", "pvalue", "qvalue"),
    ],
    SAE / "metrics/ablation_delta_ce.csv": [
        *("lemma", "sense", "latent_id", "doc_id", "batch_idx", "delta_ce", "layer", "model"),
    ],
    SAE / "metrics/pooling_sensitivity.csv": ["lemma", "pooling", "delta", "change"],
    SAE / "metrics/retrieval/exp_a_k_sweep_detail.csv": [
        *("word", "rerank_k", "query_sense", "full_P@1", "rerank_P@1", "full_AP", "rerank_AP"),
        *("delta_P@1", "delta_AP"),
    ],
    SAE / "metrics/retrieval/exp_a_k_sweep_summary.csv": [
        *("k", "delta_P@1_mean", "delta_P@1_ci", "delta_MAP_mean", "p_value", "n"),
    ],
    CORPUS / "mixed_effects/coefs_jaccard.csv": ["term", "estimate"],
    CORPUS / "mixed_effects/coefs_entropy.csv": ["term", "estimate"],
    CORPUS / "mixed_effects/coefs_delta_ce.csv": ["term", "estimate"],
    CORPUS / "mixed_effects/diagnostics.csv": ["response", "group", "value", "quantile"],
    CORPUS / "mixed_effects/fdr_correction.csv": ["term", "pvalue", "qvalue"],
}

FILES = [
    *(SAE / "sae" / name for name in ("best.safetensors", "latest.safetensors")),
    *(SAE / "sae" / name for name in ("cfg.json", "best_meta.json")),
    SAE / "calibrated/sae.safetensors",
    SAE / "viewer/viewer_pack.json",
    LAYER / "activations/metadata.json",
    CORPUS / "ner/ner_spans.jsonl",
    MODEL / "ner_spans_with_tokens.jsonl",
    *(CORPUS / f"mixed_effects/model_{name}.rds" for name in ("jaccard", "entropy", "delta_ce")),
    CORPUS / "summary.md",
]


def read(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)


@pytest.mark.parametrize("path", TABLES, ids=str)
def test_every_table_has_its_columns(study, path):
    missing = set(TABLES[path]) - set(read(study / path).columns)
    assert not missing


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_is_there_and_not_empty(study, path):
    assert (study / path).stat().st_size > 0


def test_rows_of_tokens_activations_and_latents_add_up(study):
    notes = read(study / CORPUS / "notes/notes.parquet")
    summary = json.loads((study / CORPUS / "notes/summary.json").read_text())
    assert notes.height == summary["n_notes"] == 160
    documents: set[str] = set()
    for shard in SHARDS:
        tokens = read(study / MODEL / f"tokens/{shard}.parquet")
        topk = read(study / SAE / f"topk/part-0000/{shard}.parquet")
        activations = open_shard(study / LAYER / f"activations/{shard}.safetensors")
        assert tokens.height == topk.height == activations.n_rows
        assert topk.select(tokens.columns).equals(tokens)
        documents |= set(tokens["doc_id"])
    assert documents == set(notes["doc_id"])


def test_tokens_tile_their_notes(study):
    notes = read(study / CORPUS / "notes/notes.parquet").select("doc_id", "text")
    for shard in SHARDS:
        tokens = read(study / MODEL / f"tokens/{shard}.parquet")
        for (doc_id,), rows in tokens.group_by(["doc_id"]):
            text = notes.filter(doc_id=doc_id)["text"].item()
            starts, ends = rows["char_start"].to_list(), rows["char_end"].to_list()
            pieces = [text[start:end] for start, end in zip(starts, ends, strict=True)]
            if text.isascii():
                assert "".join(pieces) == text


def test_entity_spans_are_where_they_say(study):
    notes = dict(read(study / CORPUS / "notes/notes.parquet").select("doc_id", "text").iter_rows())
    spans = [
        json.loads(line)
        for line in (study / CORPUS / "ner/ner_spans.jsonl").read_text().splitlines()
    ]
    assert len(spans) > 100
    for span in spans:
        assert notes[span["doc_id"]][span["start"] : span["end"]] == span["text"]


def test_latents_are_sorted_positive_and_normalised(study):
    topk = read(study / SAE / "topk/part-0000/val-00000.parquet")
    values = topk["z_values"].to_list()
    for z, z_norm in zip(values[:500], topk["z_values_norm"].to_list()[:500], strict=True):
        assert len(z) <= 16
        assert all(value > 0 for value in z)
        assert list(z) == sorted(z, reverse=True)
        assert all(0 <= value <= 1 for value in z_norm)


def test_the_autoencoder_explains_the_activations(study):
    fvu = json.loads((study / SAE / "sae/best_meta.json").read_text())["val_fvu"]
    assert 0 < fvu < 0.8


@pytest.mark.parametrize(
    ("model", "check"),
    [("smollm2-135m", "passed"), ("smollm2-135m-random", "not applicable: random weights")],
)
def test_the_models_read_what_they_were_fed(study, model, check):
    folder = study / CORPUS / model / "layer-6/topk-1024/metrics"
    row = read(folder / "faithfulness.csv").row(0, named=True)
    assert row["check"] == check
    assert row["ce_error_kept"] == pytest.approx(row["ce_clean"], abs=0.02)
    if check == "passed":
        assert 0 < row["fvu"] < 1
        assert row["ce_clean"] < min(row["ce_mean_ablated"], row["ce_guessing"])


def test_every_held_out_token_has_a_position(study):
    positions = read(study / SAE / "metrics/explained_variance_by_position.csv")
    held_out = read(study / MODEL / "tokens/val-00000.parquet")
    assert positions["n_tokens"].sum() == held_out.height
    assert positions["n_tokens"][0] == held_out["doc_id"].n_unique()
    told = positions.drop_nulls("fvu")
    assert 0 < (told["fvu"] * told["n_tokens"]).sum() / told["n_tokens"].sum() < 1


def test_senses_are_recovered_better_than_chance(study):
    probes = read(study / SAE / "metrics/sense_probes.csv").drop_nulls("auroc")
    terms = probes.group_by("lemma").agg(pl.col("auroc", "auroc_null").mean())
    assert terms.height >= 10
    assert wilcoxon(terms["auroc"], terms["auroc_null"], alternative="greater").pvalue < 0.05
    agreement = read(study / CORPUS / "sense_agreement.csv").drop_nulls("accuracy")
    assert agreement["accuracy"].mean() > agreement["majority_baseline"].mean() + 0.1


def test_nothing_of_a_note_is_in_the_logs(study):
    notes = read(study / CORPUS / "notes/notes.parquet")["text"].to_list()
    snippets = [note[start : start + 40] for note in notes for start in range(0, 120, 40)]
    logs = "".join(path.read_text() for path in (study / CORPUS / "logs").rglob("*.log"))
    assert logs
    assert not [snippet for snippet in snippets if len(snippet) == 40 and snippet in logs]


def planned(study: Path, config: dict) -> dict[str, int]:
    """How many jobs of each rule a run would take."""
    output = run_snakemake(study, config, "--dry-run", "all").stdout
    table = output.split("Job stats:")[1].split("total")[0]
    found = re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)
    return {rule: int(n) for rule, n in found}


def test_a_second_run_does_nothing(study, small_config):
    assert "Nothing to be done" in run_snakemake(study, small_config(study), "all").stdout


def test_a_changed_sae_retrains_and_nothing_upstream(study, small_config):
    config = small_config(study)
    config["saes"][0]["training"]["n_tokens"] = 100_000
    rules = planned(study, config)
    assert {"train_sae", "calibrate_sae", "export_topk", "measure_jaccard"} <= rules.keys()
    upstream = {"extract_activations", "tokenize_notes", "recognise_entities", "adapt_ner"}
    assert not upstream & rules.keys()


def test_keys_that_say_how_work_is_done_run_nothing_again(study, small_config):
    config = small_config(study)
    for model in config["models"]:
        model["tokens_per_batch"] = 512
    config["saes"][0]["training"] |= {
        "log_every": 7,
        "checkpoint_every": 11,
        "keep_last": 3,
        "reader_threads": 2,
    }
    config["ner"]["batch_size"] = 3
    assert "Nothing to be done" in run_snakemake(study, config, "--dry-run", "all").stdout


def test_more_permutations_run_only_what_permutes(study, small_config):
    config = small_config(study)
    config["polysemy"]["n_permutations"] = 1999
    rules = planned(study, config)
    assert {"measure_jaccard", "probe_latents", "find_sense_linked_latents"} <= rules.keys()
    others = {"measure_entropy", "measure_retrieval", "export_topk", "train_sae"}
    assert not others & rules.keys()


def test_an_sae_is_exported_where_it_is_asked_for(study, small_config):
    targets = [SAE / "interchange" / library for library in ("saelens", "sparsify")]
    # sparsify knows no normalisation of tokens
    done = run_snakemake(
        study, small_config(study), *map(str, targets), "--keep-going", check=False
    )
    assert done.returncode and "export this one for SAELens" in done.stdout
    activations = open_shard(study / LAYER / "activations/val-00000.safetensors")[:200].float()
    codes = (
        sae.encode(activations)[0]
        for sae in (
            load_saelens(study / targets[0]),
            load_sae(study / SAE / "calibrated/sae.safetensors"),
        )
    )
    torch.testing.assert_close(*codes, rtol=1e-4, atol=1e-5)


def test_a_new_layer_adds_its_own_work_only(study, small_config):
    config = small_config(study)
    config["models"][0]["layers"] = [6, 8]
    rules = planned(study, config)
    assert rules["extract_activations"] == len(SHARDS)
    assert rules["describe_activations"] == rules["train_sae"] == 1
    assert not {"tokenize_notes", "recognise_entities", "adapt_ner"} & rules.keys()


def test_a_shard_deleted_with_the_description_is_made_again(study, small_config):
    folder = study / LAYER / "activations"
    paths = [folder / f"{SHARDS[0]}.safetensors", folder / "metadata.json"]
    aside = [path.rename(path.with_suffix(".aside")) for path in paths]
    try:
        rules = planned(study, small_config(study))
    finally:
        for path, moved in zip(paths, aside, strict=True):
            moved.rename(path)
    assert rules["extract_activations"] == rules["train_sae"] == 1
