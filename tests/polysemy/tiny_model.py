"""Language models and an SAE so small that every number can be computed twice."""

import numpy as np
import polars as pl
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from medsae.polysemy.splice import decoder_blocks, read_window
from medsae.polysemy.subject import Subject, latent_codes
from medsae.sae import SAEConfig, build_sae

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_hidden_layers": 4,
}
LAYER = 1


def llama(**changes):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**(SIZES | changes))).eval()


def gemma():
    """Alternates sliding and full attention and scales its embeddings."""
    torch.manual_seed(0)
    types = ["sliding_attention", "full_attention"] * 2
    return Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, sliding_window=5, layer_types=types)).eval()


def tiny_sae(normalization="token", n_latents=64, k=8, width=SIZES["hidden_size"]):
    torch.manual_seed(1)
    sae = build_sae(
        SAEConfig(architecture="topk", n_latents=n_latents, k=k, normalization=normalization), width
    )
    with torch.no_grad():
        rows = torch.nn.functional.normalize(torch.randn(n_latents, width), dim=1)
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows)
    return sae.eval().requires_grad_(False)


def subject(model, sae, **changes):
    settings = {
        "prefix": (1,),
        "ctx_len": 40,
        "tokens_after": 6,
        "max_tokens": 8192,
        "firing_counts": np.ones(sae.config.n_latents, dtype=np.int64),
    }
    return Subject(model, LAYER, sae, **(settings | changes))


@torch.no_grad()
def plain_losses(model, tokens, edit):
    """Losses of every next token by one full forward; ``edit`` changes block LAYER's output."""

    def hook(module, inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        changed = edit(hidden)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = decoder_blocks(model)[LAYER].register_forward_hook(hook)
    logits = model(input_ids=tokens[None], use_cache=False).logits[0]
    handle.remove()
    return torch.nn.functional.cross_entropy(logits[:-1].float(), tokens[1:], reduction="none")


def corpus(model, sae, n_documents=6, length=24, seed=0):
    """Documents with a two-token term at 10 and 11, and the latents that fire on it."""
    rng = np.random.default_rng(seed)
    documents = {f"d{i}": rng.integers(2, 97, length) for i in range(n_documents)}
    rows = []
    for index, (doc_id, tokens) in enumerate(documents.items()):
        window = torch.tensor([1, *tokens])
        raw = read_window(model, LAYER, window).hidden[[11, 12]]
        strength = latent_codes(sae, raw).max(0).values
        order = strength.argsort(descending=True)
        rows.append(
            {
                "occurrence_id": index,
                "doc_id": doc_id,
                "patient_id": f"p{index // 2}",
                "lemma": "block",
                "sense": ["cardiac", "neurological"][index % 2],
                "token_positions": [10, 11],
                "latent_ids": [int(j) for j in order if strength[j] > 0],
            }
        )
    return documents, pl.DataFrame(rows)


def linked_table(latents):
    return pl.DataFrame(
        {
            "lemma": "block",
            "sense": ["cardiac"] * len(latents),
            "latent_id": latents,
            "presence_rate_diff": [0.9 - 0.1 * i for i in range(len(latents))],
            "discovered": True,
            "confirmed": True,
        }
    )
