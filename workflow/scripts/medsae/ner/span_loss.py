"""GLiNER's loss: binary cross-entropy over every span of up to K words and every label.

Summed over a chunk and averaged over the chunks of a batch; annotated spans, one in about a
thousand, weigh ``POSITIVE_WEIGHT`` times as much.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medsae.ner.annotations import Example
from medsae.ner.span_scores import span_mask

POSITIVE_WEIGHT = 3.0
MAX_LABELS = 25
"""Labels of one batch, as in GLiNER: with more, those of its spans and a sample of the others."""


def labels_of_batch(examples: list[Example], n_labels: int, rng: np.random.Generator) -> list[int]:
    """Labels in random order, so that none is known by its place in the prompt."""
    if n_labels <= MAX_LABELS:
        return rng.permutation(n_labels).tolist()
    present = sorted({label for example in examples for _, _, label in example.spans})
    absent = np.setdiff1d(np.arange(n_labels), present)
    n_absent = max(1, MAX_LABELS - len(present))
    sampled = rng.permutation(absent)[:n_absent].tolist()
    return rng.permutation([*present, *sampled]).tolist()


def span_loss(logits: Tensor, examples: list[Example], asked: list[int], lengths: Tensor) -> Tensor:
    """Loss of ``logits`` [B, L, K, C]; ``asked``: labels of the C columns; ``lengths`` [B, 1]."""
    target, known = span_targets(examples, asked, tuple(logits.shape))
    inside = span_mask(lengths, logits.shape[1], logits.shape[2])
    counted = (inside & known.to(inside.device)).unsqueeze(-1)
    losses = F.binary_cross_entropy_with_logits(
        logits.float(),
        target.to(logits.device),
        reduction="none",
        pos_weight=torch.tensor(POSITIVE_WEIGHT, device=logits.device),
    )
    return (losses * counted).sum() / len(examples)


def span_targets(
    examples: list[Example], asked: list[int], shape: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Targets [B, L, K, C] and which spans are known [B, L, K]."""
    _, n_words, max_width, _ = shape
    target, known = torch.zeros(shape), torch.ones(shape[:3], dtype=torch.bool)
    column = {label: i for i, label in enumerate(asked)}
    for i, example in enumerate(examples):
        for first, last, label in example.spans:
            target[i, first, last - first, column[label]] = 1.0
        for word in example.unknown:  # every span that holds the word
            for width in range(max_width):
                known[i, max(0, word - width) : min(word, n_words - 1) + 1, width] = False
    return target, known
