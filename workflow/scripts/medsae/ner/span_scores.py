"""Scores of all spans of up to K words against all labels, by GLiNER's markerV0 head.

GLiNER builds a vector for every span (i, j) and compares it with every label c:

    s(i, j, c) = [W2 relu(W1 [relu(a_i); relu(b_j)] + b1) + b2] . p_c

with a_i, b_j the projected start and end word and p_c the projected label. W1 acts on the two
halves separately and p_c on the outside, so the same numbers come from

    u_i = W1[:, :D] relu(a_i) + b1,   v_j = W1[:, D:] relu(b_j)          once per word
    s(i, j, c) = relu(u_i + v_j) . (W2' p_c) + b2 . p_c                  once per span

which leaves one product with a [4D, C] matrix per span instead of two with the full layers:
the head is half of a small model's work, and almost none of it is needed.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


NO_CONTEXT = ("NoneType", "IdentityContextEncoder")


def has_marker_head(gliner: Any) -> bool:
    """Whether ``gliner`` is a uni-encoder whose head is the one factored here."""
    head = getattr(gliner.model, "span_rep_layer", None)
    return (
        type(gliner.model).__name__ == "UniEncoderSpanModel"
        and type(getattr(head, "context_encoder", None)).__name__ in NO_CONTEXT
        and type(getattr(head, "span_rep_layer", None)).__name__ == "SpanMarkerV0"
        and not getattr(gliner.config, "precomputed_prompts_mode", False)
    )


def encode_batch(gliner: Any, chunks: list[list[str]], labels: list[str]) -> dict[str, Tensor]:
    """Tokenise chunks of words behind the label prompt, on the model's device.

    Returns what ``represent`` takes: input_ids, attention_mask and words_mask [B, T],
    text_lengths [B, 1] in words.
    """
    encoded = gliner.data_processor.tokenize_inputs(chunks, labels)
    batch = {key: encoded[key] for key in ("input_ids", "attention_mask", "words_mask")}
    batch["text_lengths"] = torch.tensor([[len(chunk)] for chunk in chunks])
    return {key: value.to(gliner.device) for key, value in batch.items()}


def represent(gliner: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The encoder's states of the words [B, L, D] and of the labels [B, C, D]."""
    seen = gliner.model.get_representations(**batch)
    return seen.words_embedding, seen.prompts_embedding


def span_scores(gliner: Any, words: Tensor, labels: Tensor) -> Tensor:
    """Logits [B, L, K, C]: words i to i + k of chunk b as label c, from what ``represent`` gives.

    Spans that reach past the end of their chunk have meaningless values: see ``span_mask``.
    Differentiable. In training mode a chunk's spans share one dropout mask in the last layer,
    where GLiNER draws one per span: drawing so many costs more than the layer itself.
    """
    head = gliner.model.span_rep_layer.span_rep_layer
    first, _, dropout, second = head.out_project  # Linear, ReLU, Dropout, Linear
    width = first.in_features // 2
    start = F.linear(head.project_start(words).relu(), first.weight[:, :width], first.bias)
    end = F.linear(head.project_end(words).relu(), first.weight[:, width:])
    labels = gliner.model.prompt_rep_layer(labels)  # [B, C, D]
    outer = (labels @ second.weight).transpose(1, 2)  # [B, 4D, C]
    bias = (labels @ second.bias).unsqueeze(1)  # [B, 1, C]
    n_words = words.shape[1]
    end = F.pad(end, (0, 0, 0, head.max_width - 1))
    outer = outer * dropout(torch.ones_like(outer[:, :, :1]))
    return torch.stack(
        [(start + end[:, k : k + n_words]).relu() @ outer + bias for k in range(head.max_width)],
        dim=2,
    )


def span_mask(text_lengths: Tensor, n_words: int, max_width: int) -> Tensor:
    """Which spans lie within their chunk: bool [B, L, K]."""
    device = text_lengths.device
    last = torch.arange(n_words, device=device)[:, None] + torch.arange(max_width, device=device)
    return last[None] < text_lengths.view(-1, 1, 1)
