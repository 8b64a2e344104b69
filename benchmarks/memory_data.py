"""What ``memory.py`` works on: notes with known senses, entity spans, a tiny language model."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import common
import numpy as np
import polars as pl

K, N_LATENTS, D_MODEL = 32, 1024, 128
WORDS_OF_A_NOTE = 400
FILLERS = 3000
SHARE_OF_TERMS = 0.02
SHARE_OF_SPANS = 0.1
ABLATION = {"max_latents_per_sense": 1, "max_occurrences_per_sense": 2, "tokens_after": 4}


@cache
def raw_configuration() -> dict[str, Any]:
    """A configuration that names the tiny model and its autoencoder."""
    size = {"parameters_b": 0.001, "n_layers": 3, "d_model": D_MODEL}
    training = {"n_tokens": 50_000, "batch_size": 1024, "buffer_rows": 16_384}
    return {
        "corpus": {
            "name": "memory",
            "notes": "notes.csv",
            "patient_id_column": "patient_id",
            "shards": 2,
            "val_fraction": 0.1,
        },
        "models": [
            {
                "name": "tiny",
                "source": "tiny",
                "layers": [1],
                "ctx_len": 128,
                "tokens_per_batch": 4096,
                "size": size,
            }
        ],
        "saes": [{"name": "topk", "n_latents": N_LATENTS, "k": K, "training": training}],
        "polysemy": {"retrieval": {"k_sweep": [5, 20], "n_anchor_sweep": [2, 5]}},
    }


def configuration() -> dict[str, Any]:
    """The same, as Snakemake would hand it to a script."""
    return dict(raw_configuration())


@cache
def _config() -> Any:
    from medsae.config import parse_config

    return parse_config(raw_configuration())


def labels() -> list[str]:
    """The NER labels of the configuration."""
    return list(_config().ner.labels)


def sae_settings() -> dict[str, Any]:
    """What rules/common.smk calls the settings of an SAE."""
    return _config().sae("topk").defining()


def retrieval_settings() -> dict[str, Any]:
    """The section of the retrieval experiment."""
    return _config().polysemy.retrieval.model_dump()


def notes_settings() -> dict[str, Any]:
    """The params of the rule prepare_notes."""
    columns = {"text": "text", "doc_id": "doc_id", "patient_id": "patient_id"}
    keys = ("val_fraction", "shards", "val_shards", "max_rows", "drop_empty_text")
    corpus = {key: getattr(_config().corpus, key) for key in keys}
    return corpus | {"path": "notes.csv", "seed": 0, "columns": columns}


def lexicon_files() -> dict[str, str]:
    """The shipped lexicon."""
    names = {
        "lexicon": "lexicon.csv",
        "controls": "controls.csv",
        "sense_labels": "sense_labels.yaml",
    }
    return {key: str(common.ROOT / "config" / name) for key, name in names.items()}


def generate(folder: Path, n_notes: int) -> str:
    """Write notes.csv, gold_senses.csv and the model; return their size in words."""
    senses = pl.read_csv(lexicon_files()["lexicon"]).select("term", "sense").rows()
    rng = np.random.default_rng(0)
    fillers = [f"word{number}" for number in range(FILLERS)]
    notes, gold = [], []
    for number in range(n_notes):
        doc_id, words, start = f"note{number}", [], 0
        for filler in rng.integers(FILLERS, size=WORDS_OF_A_NOTE):
            word = fillers[filler]
            if rng.random() < SHARE_OF_TERMS:
                term, sense = senses[rng.integers(len(senses))]
                cue = f"{sense}cue"  # a word before the term that goes with its sense
                words.append(cue)
                start += len(cue) + 1
                gold.append((doc_id, start, start + len(term), term, sense))
                word = term
            words.append(word)
            start += len(word) + 1
        notes.append((doc_id, f"patient{number // 2}", " ".join(words)))
    table = pl.DataFrame(notes, ["doc_id", "patient_id", "text"], orient="row")
    table.write_csv(folder / "notes.csv")
    pl.DataFrame(gold, ["doc_id", "start", "end", "term", "sense"], orient="row").write_csv(
        folder / "gold_senses.csv"
    )
    vocabulary = fillers + sorted({term for term, _ in senses} | {f"{s}cue" for _, s in senses})
    _write_model(folder / "tiny", vocabulary)
    n_words = n_notes * WORDS_OF_A_NOTE
    return f"{n_notes:,} notes, about {n_words:,} tokens, {len(gold):,} occurrences of terms"


def write_spans(folder: Path) -> None:
    """Entity spans of every shard of notes.parquet: one word in ten."""
    rng = np.random.default_rng(1)
    (folder / "ner/shards").mkdir(parents=True)
    notes = pl.read_parquet(folder / "notes.parquet", columns=["doc_id", "text", "shard"])
    for (shard,), part in notes.group_by(["shard"], maintain_order=True):
        with (folder / f"ner/shards/{shard}.jsonl").open("w") as out:
            for doc_id, text, _ in part.iter_rows():
                start = 0
                for word in text.split(" "):
                    if rng.random() < SHARE_OF_SPANS:
                        span = {
                            "doc_id": doc_id,
                            "start": start,
                            "end": start + len(word),
                            "text": word,
                            "entity_group": labels()[rng.integers(len(labels()))],
                            "score": 0.9,
                        }
                        out.write(json.dumps(span) + "\n")
                    start += len(word) + 1


def _write_model(folder: Path, vocabulary: list[str]) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    ids = {word: number for number, word in enumerate(["<unk>", "<s>", *vocabulary])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(ids),
        hidden_size=D_MODEL,
        intermediate_size=2 * D_MODEL,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def table(entries: dict[str, dict[str, Any]], scales: list[str]) -> str:
    """The peaks as a Markdown table."""
    heads = " | ".join(f"{scale}×" for scale in scales)
    lines = [f"| step, MiB at | {heads} | growth |", "|---|" + "---:|" * (len(scales) + 1)]
    for name, peaks in entries.items():
        cells = " | ".join(str(peaks[scale]) for scale in scales)
        growth = peaks[scales[-1]] / peaks[scales[0]]
        lines.append(f"| `{name}` | {cells} | {growth:.1f}× |")
    return "\n".join(lines)
