"""EleutherAI sparsify: the step of its Trainer (Adam), without the language model around it."""

import torch
from sparsify.config import SparseCoderConfig
from sparsify.sparse_coder import SparseCoder

AUXK_ALPHA = 1 / 32
DEAD_AFTER = 10_000_000


def make(architecture, train, load):
    assert architecture == "topk"
    config = SparseCoderConfig(num_latents=load.n_latents, k=load.k)
    sae = SparseCoder(load.d_model, config, device=train.device)
    sae.b_dec.data = train[:32_768].mean(0)
    optimizer = torch.optim.Adam(sae.parameters(), lr=load.learning_rate)
    since_fired = torch.zeros(load.n_latents, dtype=torch.long, device=train.device)

    def step(batch):
        did_fire = torch.zeros_like(since_fired, dtype=torch.bool)
        sae.set_decoder_norm_to_unit_norm()
        out = sae(batch, dead_mask=since_fired > DEAD_AFTER)
        did_fire[out.latent_indices.flatten()] = True
        (out.fvu + AUXK_ALPHA * out.auxk_loss + out.multi_topk_fvu / 8).backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        since_fired.add_(batch.shape[0])
        since_fired[did_fire] = 0

    def evaluate(rows):
        out = sae(rows)
        active = rows.new_zeros(len(rows), load.n_latents, dtype=torch.bool)
        return out.sae_out, active.scatter_(1, out.latent_indices, out.latent_acts > 0)

    return step, evaluate
