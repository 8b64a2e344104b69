"""A plain dense TopK loop in torch: what one would write in an afternoon."""

import torch
from torch.nn import functional


def make(architecture, train, load):
    generator = torch.Generator().manual_seed(load.seed)
    decoder = functional.normalize(
        torch.randn(load.n_latents, load.d_model, generator=generator), dim=1
    ).to(train.device)
    w_dec = decoder.clone().requires_grad_()
    w_enc = decoder.clone().requires_grad_()
    b_enc = torch.zeros(load.n_latents, device=train.device, requires_grad=True)
    b_pre = train[:32_768].mean(0).requires_grad_()
    optimizer = torch.optim.Adam([w_enc, b_enc, w_dec, b_pre], lr=load.learning_rate)

    def codes(x):
        pre = (x - b_pre) @ w_enc.T + b_enc
        top = pre.topk(load.k, dim=1)
        return torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())

    def step(batch):
        optimizer.zero_grad()
        reconstruction = codes(batch) @ w_dec + b_pre
        (reconstruction - batch).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            w_dec.div_(w_dec.norm(dim=1, keepdim=True))

    def evaluate(rows):
        z = codes(rows)
        return z @ w_dec + b_pre, z > 0

    return step, evaluate
