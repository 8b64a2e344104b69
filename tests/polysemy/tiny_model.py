"""Language models and an SAE so small that every number can be computed twice."""

import numpy as np
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from medsae.polysemy.splice import decoder_blocks
from medsae.polysemy.subject import Subject
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


def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()


def gemma():
    """Alternates sliding and full attention and scales its embeddings."""
    torch.manual_seed(0)
    types = ["sliding_attention", "full_attention"] * 2
    return Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, sliding_window=5, layer_types=types)).eval()


def tiny_sae(normalization="token", n_latents=64, k=8):
    torch.manual_seed(1)
    sae = build_sae(
        SAEConfig(architecture="topk", n_latents=n_latents, k=k, normalization=normalization), 32
    )
    with torch.no_grad():
        rows = torch.nn.functional.normalize(torch.randn(n_latents, 32), dim=1)
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
