"""The product that no exact trainer can avoid: the encoder's, once, forward."""

import torch


def make(architecture, train, load):
    weight = torch.randn(load.n_latents, load.d_model, device=train.device)
    out = torch.empty(load.batch_size, load.n_latents, device=train.device)

    def step(batch):
        torch.mm(batch, weight.T, out=out)

    return step, None
