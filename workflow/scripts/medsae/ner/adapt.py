"""Fine-tune GLiNER on annotated notes.

In two phases. New layers are first trained alone, on states of the frozen encoder that are
computed once: such a step costs a tenth, and the encoder is not bent to a head that knows
nothing yet (linear probing, then fine-tuning: Kumar et al. 2022). Then everything. AdamW, linear
warm-up and decay, gradients clipped to norm 1; products in bfloat16, weights in float32. The
loss: see ``span_loss``.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn import Parameter

from medsae.io import UserError, progress
from medsae.ner.annotations import AnnotatedNotes, Example
from medsae.ner.columns import LOSS_COLUMNS
from medsae.ner.span_loss import labels_of_batch, span_loss
from medsae.ner.span_scores import encode_batch, has_marker_head, represent, span_scores
from medsae.statistics import stream

logger = logging.getLogger("medsae")

WARMUP = 0.1
WEIGHT_DECAY = 0.01
MAX_GRADIENT_NORM = 1.0
BATCHES_HELD = 128
"""Batches whose states are held in memory while the new layers are trained alone."""

HEAD, ALL = "new layers", "all layers"


@dataclass(frozen=True)
class Training:
    """How long and how fast: see ``NerAdaptation`` in the configuration."""

    n_head_steps: int
    n_steps: int
    batch_size: int
    learning_rate: float
    head_learning_rate: float
    chunk_words: int


@dataclass(frozen=True)
class _Batch:
    """Chunks as the encoder sees them: states of words [B, L, D] and of labels [B, C, D]."""

    examples: list[Example]
    asked: list[int]
    lengths: Tensor
    words: Tensor
    labels: Tensor


def adapt_gliner(
    model: Any, notes: AnnotatedNotes, labels: list[str], training: Training, seed: int
) -> pl.DataFrame:
    """Train ``model`` in place; returns ``LOSS_COLUMNS``, one row per step of either phase.

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
    max_words = min(training.chunk_words, int(model.config.max_len))
    chunks = notes.batches(training.batch_size, max_words, rng)

    def read() -> _Batch:
        return _read(model, next(chunks), labels, rng)

    rows = []
    if training.n_head_steps:
        n_held = min(BATCHES_HELD, training.n_head_steps)
        model.eval()  # no dropout in what is held
        with torch.no_grad():
            held = [read() for _ in progress(range(n_held), "batches read by the encoder")]
        parameters = _head(model)
        rate = training.head_learning_rate
        rows += _train(
            model, HEAD, parameters, rate, training.n_head_steps, lambda: _one_of(held, rng)
        )
    if training.n_steps:
        parameters = list(model.model.parameters())
        rows += _train(model, ALL, parameters, training.learning_rate, training.n_steps, read)
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
    return pl.DataFrame(
        [(step, *row) for step, row in enumerate(rows, 1)], schema=list(LOSS_COLUMNS), orient="row"
    )


def _head(model: Any) -> list[Parameter]:
    """Parameters of everything on top of the encoder."""
    encoder = {id(parameter) for parameter in model.model.token_rep_layer.bert_layer.parameters()}
    return [parameter for parameter in model.model.parameters() if id(parameter) not in encoder]


def _read(
    model: Any, examples: list[Example], labels: list[str], rng: np.random.Generator
) -> _Batch:
    asked = labels_of_batch(examples, len(labels), rng)
    chunks = [example.words for example in examples]
    inputs = encode_batch(model, chunks, [labels[label] for label in asked])
    with torch.autocast(model.device.type, torch.bfloat16):
        words, label_states = represent(model, inputs)
    return _Batch(examples, asked, inputs["text_lengths"], words, label_states)


def _train(
    model: Any,
    phase: str,
    parameters: list[Parameter],
    learning_rate: float,
    n_steps: int,
    draw: Callable[[], _Batch],
) -> list[tuple[str, float, float]]:
    """Take ``n_steps`` optimiser steps; per step the phase, the loss and the learning rate."""
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _linear(step, n_steps))
    rows = []
    model.train()
    for step in progress(range(1, n_steps + 1), f"fine-tuning steps, {phase}"):
        batch = draw()
        rate = optimizer.param_groups[0]["lr"]
        with torch.autocast(model.device.type, torch.bfloat16):
            logits = span_scores(model, batch.words, batch.labels)
        loss = span_loss(logits, batch.examples, batch.asked, batch.lengths)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        rows.append((phase, loss.item(), rate))
        if step % max(1, n_steps // 10) == 0:
            recent = np.mean([loss for _, loss, _ in rows[-max(1, n_steps // 10) :]])
            logger.info("%s, step %d: loss %.2f per chunk", phase, step, recent)
    return rows


def _one_of(batches: list[_Batch], rng: np.random.Generator) -> _Batch:
    return batches[rng.integers(len(batches))]


def _linear(step: int, n_steps: int) -> float:
    warmup = max(1, round(WARMUP * n_steps))
    return min((step + 1) / warmup, (n_steps - step) / max(1, n_steps - warmup))
