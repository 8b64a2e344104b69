"""Fine-tune GLiNER on annotated notes.

The loss is GLiNER's: binary cross-entropy over every span of up to K words and every label,
summed over a chunk, averaged over the chunks of a batch; annotated spans, one in about a
thousand, weigh ``POSITIVE_WEIGHT`` times as much. Steps: AdamW, two learning rates (encoder;
everything on top of it), linear warm-up and decay, gradients clipped to norm 1. Products are
in bfloat16, weights in float32.
"""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from medsae.io import UserError, progress
from medsae.ner.annotations import AnnotatedNotes, Example
from medsae.ner.columns import LOSS_COLUMNS
from medsae.ner.span_scores import encode_batch, has_marker_head, span_mask, span_scores
from medsae.statistics import stream

logger = logging.getLogger("medsae")

WARMUP = 0.1
WEIGHT_DECAY = 0.01
MAX_GRADIENT_NORM = 1.0
POSITIVE_WEIGHT = 3.0
MAX_LABELS = 25
"""Labels of one batch, as in GLiNER: with more, those of its spans and a sample of the others."""


@dataclass(frozen=True)
class Training:
    """How long and how fast: see ``NerAdaptation`` in the configuration."""

    n_steps: int
    batch_size: int
    learning_rate: float
    head_learning_rate: float
    chunk_words: int


def adapt_gliner(
    model: Any, notes: AnnotatedNotes, labels: list[str], training: Training, seed: int
) -> pl.DataFrame:
    """Train ``model`` in place; returns ``LOSS_COLUMNS``, one row per step.

    Computes on the model's device. On a CPU the same inputs give the same weights.

    Raises ``UserError`` if the model is not of the kind that is trained here.
    """
    if not has_marker_head(model):
        raise UserError(
            "ner.adapt fine-tunes GLiNER models with one encoder and markerV0 spans; choose such "
            "a model as ner.source, or a plain encoder"
        )
    torch.manual_seed(seed)  # dropout
    rng = stream(seed, "adapt_ner")
    groups = _parameter_groups(model, training)
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _linear(step, training.n_steps)
    )
    max_words = min(training.chunk_words, int(model.config.max_len))
    batches = notes.batches(training.batch_size, max_words, rng)
    rows = []
    model.train()
    for step in progress(range(1, training.n_steps + 1), "fine-tuning steps"):
        examples = next(batches)
        rates = [group["lr"] for group in optimizer.param_groups]
        loss = _loss(model, examples, labels, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.model.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        rows.append((step, loss.item(), *rates))
        if step % max(1, training.n_steps // 10) == 0:
            recent = np.mean([row[1] for row in rows[-training.n_steps // 10 :]])
            logger.info("step %d: loss %.2f per chunk", step, recent)
    model.eval()
    counts = notes.counts
    logger.info(
        "annotated spans drawn: %d, %d of them widened to whole words; left out: %d longer than "
        "%d words, %d without any word",
        counts.kept,
        counts.widened,
        counts.too_long,
        model.config.max_width,
        counts.without_words,
    )
    return pl.DataFrame(rows, schema=list(LOSS_COLUMNS), orient="row")


def _linear(step: int, n_steps: int) -> float:
    warmup = max(1, round(WARMUP * n_steps))
    return min((step + 1) / warmup, (n_steps - step) / max(1, n_steps - warmup))


def _parameter_groups(model: Any, training: Training) -> list[dict[str, Any]]:
    encoder = list(model.model.token_rep_layer.bert_layer.parameters())
    known = {id(parameter) for parameter in encoder}
    head = [parameter for parameter in model.model.parameters() if id(parameter) not in known]
    return [
        {"params": encoder, "lr": training.learning_rate},
        {"params": head, "lr": training.head_learning_rate},
    ]


def _loss(
    model: Any, examples: list[Example], labels: list[str], rng: np.random.Generator
) -> Tensor:
    asked = _labels_of_batch(examples, len(labels), rng)
    batch = encode_batch(model, [example.words for example in examples], [labels[i] for i in asked])
    with torch.autocast(model.device.type, torch.bfloat16):
        logits = span_scores(model, batch)
    target, known = _targets(examples, asked, tuple(logits.shape))
    inside = span_mask(batch["text_lengths"], logits.shape[1], logits.shape[2])
    counted = (inside & known.to(inside.device)).unsqueeze(-1)
    losses = F.binary_cross_entropy_with_logits(
        logits.float(),
        target.to(logits.device),
        reduction="none",
        pos_weight=torch.tensor(POSITIVE_WEIGHT, device=logits.device),
    )
    return (losses * counted).sum() / len(examples)


def _labels_of_batch(examples: list[Example], n_labels: int, rng: np.random.Generator) -> list[int]:
    """Labels in random order, so that none is known by its place in the prompt."""
    if n_labels <= MAX_LABELS:
        return rng.permutation(n_labels).tolist()
    present = sorted({label for example in examples for _, _, label in example.spans})
    absent = np.setdiff1d(np.arange(n_labels), present)
    n_absent = max(1, MAX_LABELS - len(present))
    sampled = rng.permutation(absent)[:n_absent].tolist()
    return rng.permutation([*present, *sampled]).tolist()


def _targets(
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
