"""Next-token losses of a causal LM whose residual stream is edited after one block.

    edited output of block ℓ  →  blocks ℓ+1 … L  →  −log p(next token)

A decoder is causal: an edit at positions ≥ p changes neither the keys and values of
positions < p in any block nor anything below block ℓ. So a window is read once, clean,
and every edit runs only the positions from p on through the blocks above ℓ, against the
cached keys and values of the prefix, many edits in one batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from medsae.activations.language_model import decoder_blocks, decoder_of

MAX_LOGITS = 2**28
"""Logits held at once: 1 GiB in float32, however large the vocabulary."""


@dataclass(frozen=True)
class Reading:
    """A window as the untouched model sees it."""

    tokens: Tensor  # int64 [T], special tokens included
    hidden: Tensor  # [T, d], output of block ℓ
    cache: DynamicCache  # keys and values of all blocks, [1, heads, T, d_head] each


@torch.no_grad()
def read_window(model: PreTrainedModel, layer: int, tokens: Tensor) -> Reading:
    """One clean pass over ``tokens`` int64 [T], without the LM head."""
    captured: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        captured.append(output[0] if isinstance(output, tuple) else output)

    handle = decoder_blocks(model)[layer].register_forward_hook(keep)
    # No config: every block keeps all positions, also those that attend to a sliding window.
    cache = DynamicCache()
    try:
        decoder_of(model)(input_ids=tokens[None], past_key_values=cache, use_cache=True)
    finally:
        handle.remove()
    return Reading(tokens, captured[0][0], cache)


@torch.no_grad()
def edited_losses(
    model: PreTrainedModel,
    layer: int,
    reading: Reading,
    edited: Tensor,
    first: int,
    n_scored: int,
    max_tokens: int = 8192,
) -> Tensor:
    """Losses in nats, float32 [R, n_scored], of R edits of one window.

    ``edited`` [R, S, d] replaces the output of block ``layer`` at positions ``first`` …
    first + S − 1. The last ``n_scored`` of these positions are scored, each on the token
    after it, so the window must have first + S + 1 tokens at least. ``max_tokens`` bounds
    the tokens, prefix included, of one forward pass.
    """
    n_edits, length = edited.shape[:2]
    stop = first + length
    targets = reading.tokens[stop - n_scored + 1 : stop + 1]
    by_logits = MAX_LOGITS // (n_scored * model.config.get_text_config().vocab_size)
    rows = max(1, min(n_edits, by_logits, max_tokens // stop))
    positions = torch.arange(first, stop, device=reading.tokens.device)[None]
    parts = []
    for part in edited.split(rows):
        with _output_of_block(model, layer, part):
            logits = model(
                input_ids=reading.tokens[None, first:stop].expand(len(part), -1),
                position_ids=positions,
                past_key_values=_prefix(reading.cache, layer, first, len(part)),
                use_cache=True,
                logits_to_keep=n_scored,
            ).logits.float()
        wanted = targets.to(logits.device).repeat(len(part))
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), wanted, reduction="none")
        parts.append(losses.view(len(part), n_scored))
    return torch.cat(parts)


def _prefix(cache: DynamicCache, layer: int, length: int, n_rows: int) -> DynamicCache:
    """The first ``length`` positions of ``cache`` for a batch of ``n_rows``.

    The blocks up to ``layer`` do not run, so theirs is only asked for its length.
    """
    prefix = DynamicCache()
    blocks: Any = cache.layers
    for index, block in enumerate(blocks):
        size = n_rows if index > layer else 1
        keys, values = (
            states[:, :, :length].expand(size, -1, -1, -1) for states in (block.keys, block.values)
        )
        prefix.update(keys, values, index)
    return prefix


@contextmanager
def _output_of_block(model: PreTrainedModel, layer: int, hidden: Tensor) -> Iterator[None]:
    """Let block ``layer`` return ``hidden`` and the blocks below it do nothing."""
    blocks = decoder_blocks(model)[: layer + 1]
    originals = [block.__dict__.get("forward") for block in blocks]
    for block in blocks:
        block.forward = _unchanged
    blocks[-1].forward = partial(_given, hidden)
    try:
        yield
    finally:
        for block, original in zip(blocks, originals, strict=True):
            del block.forward
            if original is not None:  # accelerate's hooks live there
                block.forward = original


def _unchanged(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return hidden_states


def _given(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return hidden
