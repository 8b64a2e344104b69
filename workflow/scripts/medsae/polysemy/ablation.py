"""ΔCE: how much worse the next tokens are predicted without one latent.

    ΔCE_ℓ = CE(x̂₋ℓ + e) − CE(x̂ + e) = CE(x − z_ℓ d_ℓ) − CE(x),   e = x − x̂

The reconstruction error e is kept, in raw units, so that only the latent's own part
z_ℓ d_ℓ is missing. It is removed at the tokens of the term; the loss is the mean over the
tokens that follow, in nats. Every linked latent is compared with a latent that fires at the
same occurrence, about as strongly and about as often in the corpus.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch

from medsae.io import atomic_path, progress
from medsae.polysemy.splice import Reading, edited_losses, read_window
from medsae.polysemy.subject import Subject, contributions, latent_codes
from medsae.statistics import stream

NEAREST = 5
"""A control is drawn from this many best matches, so that it is not always the same latent."""

DOCUMENTS_PER_PART = 16
"""Documents after which the work done is on disk."""

SCHEMA = {
    "lemma": pl.String,
    "sense": pl.String,
    "latent_id": pl.Int64,
    "doc_id": pl.String,
    "delta_ce": pl.Float64,
    "patient_id": pl.String,
    "occurrence_id": pl.Int64,
    "occurrence_sense": pl.String,
    "on_sense": pl.Boolean,
    "linked": pl.Boolean,
    "matched_to": pl.Int64,
    "activation": pl.Float64,
    "n_tokens": pl.Int64,
}


PUBLISHED = ("lemma", "sense", "latent_id", "doc_id", "batch_idx", "delta_ce", "layer", "model")
"""Columns of the published table, which come first."""


def ablate(
    subject: Subject,
    pairs: pl.DataFrame,
    documents: dict[str, np.ndarray],
    linked: pl.DataFrame,
    parts: Path,
    seed: int,
) -> pl.DataFrame:
    """One row per latent removed at an occurrence, controls included: `SCHEMA` and ``batch_idx``,
    which counts the occurrences.

    ``pairs`` from ``choose_occurrences``; ``documents``: token ids of the documents they
    name; ``linked``: the table of sense-linked latents. What is done is kept in the folder
    ``parts``, `DOCUMENTS_PER_PART` documents a file, so that a killed run goes on from
    there; the folder must belong to these very inputs.
    """
    excluded = _not_controls(linked)
    doc_ids = sorted(documents)
    starts = range(0, len(doc_ids), DOCUMENTS_PER_PART)
    tables = []
    for start in progress(starts, "Ablation, batches of documents"):
        part = parts / f"{start:08d}.parquet"
        if not part.exists():
            rows = []
            for doc_id in doc_ids[start : start + DOCUMENTS_PER_PART]:
                here = pairs.filter(pl.col("doc_id") == doc_id)
                rows += ablate_document(subject, here, documents[doc_id], excluded, seed)
            with atomic_path(part) as temporary:
                pl.DataFrame(rows, schema=SCHEMA).write_parquet(temporary)
        tables.append(pl.read_parquet(part))
    batch = pl.col("occurrence_id").rle_id().cast(pl.Int64).alias("batch_idx")
    return pl.concat([pl.DataFrame(schema=SCHEMA), *tables]).with_columns(batch)


def _not_controls(linked: pl.DataFrame) -> dict[str, set[int]]:
    """Per lemma the latents that may be linked to a sense, which no control should be."""
    maybe = linked.filter(pl.col("discovered") | pl.col("confirmed"))
    grouped = maybe.group_by("lemma").agg(pl.col("latent_id")).iter_rows()
    return {lemma: set(latents) for lemma, latents in grouped}


@torch.no_grad()
def ablate_document(
    subject: Subject,
    pairs: pl.DataFrame,
    tokens: np.ndarray,
    excluded: dict[str, set[int]],
    seed: int,
) -> list[dict]:
    """Rows of `SCHEMA` for the chosen ``pairs`` of one document.

    ``tokens`` int [n]: the document's token ids; ``excluded``: per lemma the latents that
    are no control, because they may be linked to a sense. A latent that does not fire at
    the term in its re-read window, and a term without a following token, give no row.
    """
    rows: list[dict] = []
    places = _places(subject, pairs, len(tokens))
    for (begin,), group in places.group_by(["start"], maintain_order=True):
        stop = group["stop"].to_numpy().max()
        ids = np.concatenate([subject.prefix, tokens[begin:stop]])
        window = torch.as_tensor(ids, dtype=torch.int64, device=subject.device)
        reading = read_window(subject.model, subject.layer, window)
        shift = len(subject.prefix) - begin
        for _, occurrence in group.group_by("occurrence_id", maintain_order=True):
            rows += _ablate_occurrence(subject, reading, occurrence, shift, excluded, seed)
    return rows


def _places(subject: Subject, pairs: pl.DataFrame, n_tokens: int) -> pl.DataFrame:
    """Window [start, stop) of each pair, in tokens of the document.

    A window ends ``tokens_after`` after the term and begins with the document where that
    is within ``ctx_len``, so that the occurrences of a short document share one window.
    """
    last = pl.col("token_positions").list.max().cast(pl.Int64)
    stop = pl.min_horizontal(last + 1 + subject.tokens_after, n_tokens)
    return (
        pairs.with_columns(stop.alias("stop"), (last + 1).alias("end"))
        .filter(pl.col("stop") > pl.col("end"))
        .with_columns(pl.max_horizontal(pl.col("stop") - subject.ctx_len, 0).alias("start"))
    )


def _ablate_occurrence(
    subject: Subject,
    reading: Reading,
    pairs: pl.DataFrame,
    shift: int,
    excluded: dict[str, set[int]],
    seed: int,
) -> list[dict]:
    about = pairs.row(0, named=True)
    term = [position + shift for position in about["token_positions"]]
    raw = reading.hidden[term]
    codes = latent_codes(subject.sae, raw)  # [n_term, n_latents]
    strength = codes.max(0).values.cpu().numpy()
    removals = [
        (pair, latent, latent == pair["latent_id"])
        for pair, latent in _with_controls(subject, pairs, strength, excluded, seed)
    ]
    if not removals:
        return []
    latents = torch.tensor([latent for _, latent, _ in removals], device=raw.device)
    first, stop = term[0], about["stop"] + shift
    n_scored = about["stop"] - about["end"]
    clean = reading.hidden[first : stop - 1]
    edited = clean.repeat(len(removals) + 1, 1, 1)  # the first row stays untouched
    within = torch.tensor(term, device=raw.device) - first
    missing = contributions(subject.sae, raw, codes, latents)
    edited[1:, within] = (raw.float() - missing).to(edited.dtype)
    losses = edited_losses(
        subject.model, subject.layer, reading, edited, first, n_scored, subject.max_tokens
    )
    mean = losses.double().mean(1)
    return [
        {
            **{name: pair[name] for name in pair if name in SCHEMA},
            "latent_id": latent,
            "delta_ce": delta,
            "linked": is_linked,
            "matched_to": None if is_linked else pair["latent_id"],
            "activation": float(strength[latent]),
            "n_tokens": n_scored,
        }
        for (pair, latent, is_linked), delta in zip(
            removals, (mean[1:] - mean[0]).tolist(), strict=True
        )
    ]


def _with_controls(
    subject: Subject,
    pairs: pl.DataFrame,
    strength: np.ndarray,
    excluded: dict[str, set[int]],
    seed: int,
) -> Iterator[tuple[dict, int]]:
    """(pair, latent to remove): each linked latent that fires, then its control if there is one."""
    free = strength > 0
    free[list(excluded[pairs["lemma"][0]])] = False
    for pair in pairs.iter_rows(named=True):
        latent = pair["latent_id"]
        if strength[latent] <= 0:
            continue
        yield pair, latent
        rng = stream(seed, "control", pair["occurrence_id"], pair["sense"], latent)
        control = matched_latent(latent, strength, subject.firing_counts, free, rng)
        if control is not None:
            free[control] = False
            yield pair, control


def matched_latent(
    latent: int,
    strength: np.ndarray,
    firing_counts: np.ndarray,
    free: np.ndarray,
    rng: np.random.Generator,
) -> int | None:
    """A latent among ``free`` bool [n_latents] that is like ``latent``; None if none is free.

    Drawn from the `NEAREST` by |Δ ln activation| + |Δ ln firing count|.
    """
    candidates = np.flatnonzero(free)
    if not len(candidates):
        return None
    counts = np.log1p(firing_counts)
    distance = np.abs(np.log(strength[candidates]) - np.log(strength[latent]))
    distance += np.abs(counts[candidates] - counts[latent])
    nearest = candidates[np.lexsort((candidates, distance))[:NEAREST]]
    return int(rng.choice(nearest))
