"""overcomplete: the step of its ``train_sae`` without monitoring. Given centred data, for it
has no data-based bias."""

import sys
from types import ModuleType

import torch

# its image models want torchvision at import; nothing here uses them (see run.py)
sys.modules["torchvision"] = ModuleType("torchvision")
sys.modules["torchvision"].transforms = ModuleType("transforms")

from overcomplete.sae import BatchTopKSAE, TopKSAE  # noqa: E402
from overcomplete.sae.train import train_sae  # noqa: E402


def make(architecture, train, load):
    if architecture == "topk":
        sae = TopKSAE(load.d_model, load.n_latents, top_k=load.k)
    else:
        sae = BatchTopKSAE(load.d_model, load.n_latents, top_k=load.k * load.batch_size)
    mean = train[:32_768].mean(0)
    optimizer = torch.optim.Adam(sae.parameters(), lr=load.learning_rate)

    def criterion(x, x_hat, pre_codes, codes, dictionary):
        return (x - x_hat).square().mean()

    def step(batch):
        train_sae(sae, [batch - mean], criterion, optimizer, nb_epochs=1, monitoring=0)

    def evaluate(rows):
        sae.eval()
        _, codes, reconstruction = sae(rows - mean)
        return reconstruction + mean, codes > 0

    return step, evaluate
