"""What of a term's Δ comes of training, and what of the words around it alone.

    gain = Δ(trained weights) − Δ(random weights)

over the occurrences that both tables hold, with the same senses and the same resamples of patients.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medsae.io import progress
from medsae.polysemy.columns import POLYSEMOUS, TRAINING_GAIN, tidy
from medsae.polysemy.jaccard_pairs import MODELLED_K
from medsae.polysemy.paired_deltas import resampled_delta
from medsae.polysemy.sparse import (
    LemmaLatents,
    cap_by_patient,
    read_lemmas,
    sense_sample,
    source_of,
)
from medsae.statistics import MIN_CLUSTERS, stream

MAX_COMPARED = 20_000
"""Occurrences of a term that are compared; more are cut by whole patients."""

UNTRAINED = "untrained_"


def measure_training_gain(
    trained: str | Path, untrained: str | Path, statistics: dict[str, int]
) -> pl.DataFrame:
    """Table training_gain, one row per ambiguous term, of the `MODELLED_K` strongest latents.

    ``trained``, ``untrained``: occurrence_latents.parquet of two SAEs on the same notes;
    ``statistics``: min_occurrences, n_bootstrap, seed.
    """
    both = _terms_of_both(trained, untrained)
    rows = [_row(*_shared(*pair), statistics) for pair in progress(both, "gain of training")]
    texts = dict.fromkeys(("lemma", "reason"), pl.String)
    whole = dict.fromkeys(("k", "n_occurrences", "n_patients"), pl.Int64)
    source = {name: pl.lit(value) for name, value in source_of(trained).items()}
    source |= {UNTRAINED + name: pl.lit(value) for name, value in source_of(untrained).items()}
    own = [name for name in TRAINING_GAIN if name not in source]
    table = pl.DataFrame(rows, schema={n: (texts | whole).get(n, pl.Float64) for n in own})
    return tidy(table.with_columns(**source).select(TRAINING_GAIN).sort("lemma"))


def _terms_of_both(
    one: str | Path, other: str | Path
) -> Iterator[tuple[LemmaLatents, LemmaLatents]]:
    """Each ambiguous term that both tables hold, one term in memory at a time."""
    counterparts = read_lemmas(other, kinds=(POLYSEMOUS,))  # alphabetical, as the others
    counterpart = next(counterparts, None)
    for lemma in read_lemmas(one, kinds=(POLYSEMOUS,)):
        while counterpart is not None and counterpart.lemma < lemma.lemma:
            counterpart = next(counterparts, None)
        if counterpart is not None and counterpart.lemma == lemma.lemma:
            yield lemma, counterpart


def _shared(one: LemmaLatents, other: LemmaLatents) -> tuple[LemmaLatents, LemmaLatents]:
    """Both without the occurrences that only one has, in the same order."""
    ids = [lemma.table["occurrence_id"] for lemma in (one, other)]
    kept = [mine.is_in(yours.implode()).to_numpy() for mine, yours in (ids, ids[::-1])]
    return one.take(kept[0]), other.take(kept[1])


def _row(
    trained: LemmaLatents, untrained: LemmaLatents, statistics: dict[str, int]
) -> dict[str, Any]:
    rng = stream(statistics["seed"], "training gain", trained.lemma)
    kept = cap_by_patient(trained, MAX_COMPARED, rng)
    samples = [
        sense_sample(lemma.take(kept), statistics["min_occurrences"])
        for lemma in (trained, untrained)
    ]
    sample = samples[0]
    row = {
        "lemma": trained.lemma,
        "k": MODELLED_K,
        "n_occurrences": len(sample.latents),
        "n_patients": sample.latents.table["patient_id"].n_unique(),
        "reason": sample.reason,
    }
    if sample.reason is not None:
        return row
    own, random = (resampled_delta(each, MODELLED_K, statistics) for each in samples)
    row |= own.columns("delta") | random.columns("delta_untrained")
    row |= own.minus(random).columns("gain")
    fewest = min(
        len(np.unique(sample.latents.patient[sample.label == sense]))
        for sense in range(len(sample.senses))
    )
    if fewest < MIN_CLUSTERS:
        row |= {name: None for name in row if name.endswith(("_low", "_high"))}
        row["reason"] = f"no interval: a sense has {fewest} patients only"
    return row
