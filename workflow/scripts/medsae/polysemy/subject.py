"""What is ablated: a language model, the SAE of one of its layers, and the text's windows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from transformers import PreTrainedModel

from medsae.activations.language_model import load_causal_lm, sink_token_id
from medsae.activations.tokenize import load_tokenizer
from medsae.device import best_device
from medsae.io import UserError
from medsae.sae import SparseAutoencoder, load_sae


@dataclass(frozen=True)
class Subject:
    """What is ablated, and how: a model, the SAE of one of its layers, the text's windows.

    ``prefix``        the token before every window that takes the attention sink
    ``ctx_len``       tokens of a window at most, ``prefix`` not counted
    ``tokens_after``  tokens after the term over which the loss is averaged
    ``max_tokens``    tokens of one forward pass
    ``firing_counts`` int64 [n_latents], tokens of the corpus on which each latent fires
    """

    model: PreTrainedModel
    layer: int
    sae: SparseAutoencoder
    prefix: tuple[int, ...]
    ctx_len: int
    tokens_after: int
    max_tokens: int
    firing_counts: np.ndarray

    @property
    def device(self) -> torch.device:
        """Where the model reads its tokens."""
        return next(self.model.get_input_embeddings().parameters()).device


def load_subject(
    source: str,
    layer: int,
    sae: str | Path,
    calibration: str | Path,
    extraction: dict[str, Any],
    limits: dict[str, int],
) -> Subject:
    """The `Subject` of the configuration's sections ``extraction`` and ``ablation``.

    Raises ``UserError`` when the tokens after a term fill a window.
    """
    if 2 * limits["tokens_after"] > extraction["ctx_len"]:
        raise UserError(
            f"polysemy.ablation.tokens_after is {limits['tokens_after']}: lower it to at most "
            f"half of the model's ctx_len, {extraction['ctx_len']}"
        )
    trust = extraction["trust_remote_code"]
    model = load_causal_lm(
        source,
        dtype=extraction["dtype"],
        quantization=extraction["quantization"],
        attention=extraction["attention"],
        trust_remote_code=trust,
    )
    sink = sink_token_id(load_tokenizer(source, trust), model.config)
    counts = pl.read_parquet(calibration, columns=["latent_id", "firing_count"]).sort("latent_id")
    return Subject(
        model=model,
        layer=layer,
        sae=load_sae(sae, best_device()),
        prefix=(sink,),
        ctx_len=extraction["ctx_len"],
        tokens_after=limits["tokens_after"],
        max_tokens=extraction["tokens_per_batch"],
        firing_counts=counts["firing_count"].to_numpy(),
    )


@torch.no_grad()
def latent_codes(sae: SparseAutoencoder, raw: Tensor) -> Tensor:
    """All activations z, float32 [n, n_latents], of the few raw vectors ``raw`` [n, d]."""
    code = sae.sparse_code(raw)
    dense = torch.zeros(len(raw), sae.config.n_latents, device=code.values.device)
    dense[code.pattern.tokens.long(), code.pattern.columns.long()] = code.values.float()
    return dense


@torch.no_grad()
def contributions(sae: SparseAutoencoder, raw: Tensor, codes: Tensor, latents: Tensor) -> Tensor:
    """What each of ``latents`` [m] adds to the reconstruction, in raw units: [m, n, d]."""
    scale = sae.normalize(raw)[1].scale
    return codes[:, latents].T[:, :, None] * sae.W_dec[latents][:, None, :] * scale
