"""Does it matter how the tokens of a term become one code? Δ of each term under each pooling.

The same occurrences and the same resamples of patients under every pooling, so that the change
against the pooling of the study is a paired difference with an interval of its own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import polars as pl

from medsae.polysemy.columns import POLYSEMOUS, POOLING, tidy
from medsae.polysemy.paired_deltas import Delta, resampled_delta
from medsae.polysemy.pooling import Pooling, pool_occurrences
from medsae.polysemy.sparse import codes_of, read_lemmas, sense_sample, whole_patients
from medsae.statistics import stream

MAX_COMPARED = 2_000
"""Occurrences of a term that are compared; more are cut by whole patients."""


def compare_poolings(
    occurrences: pl.DataFrame,
    topk: Sequence[str | Path],
    chosen: Pooling,
    k: int,
    depth: int,
    statistics: dict[str, int],
) -> pl.DataFrame:
    """Table pooling_sensitivity without its source, one row per term and pooling.

    ``occurrences`` located among the tokens; ``topk`` as for ``pool_occurrences``; ``k`` latents
    make a code, the ``depth`` largest are compared. ``chosen`` is the pooling of the study.
    """
    known = occurrences.filter(pl.col("kind").cast(pl.String) == POLYSEMOUS)
    drawn = _draw(known.filter(pl.col("sense").is_not_null()), statistics["seed"])
    rows: list[dict[str, Any]] = []
    deltas: dict[tuple[str, str], Delta] = {}
    for pooling in get_args(Pooling):
        for lemma in read_lemmas(pool_occurrences(drawn, topk, pooling, k)):
            sample = sense_sample(lemma, statistics["min_occurrences"])
            span = lemma.table["row_end"].cast(pl.Int64) - lemma.table["row_start"].cast(pl.Int64)
            rows.append(
                {
                    "lemma": lemma.lemma,
                    "pooling": pooling,
                    "chosen": pooling == chosen,
                    "k": depth,
                    "tokens_per_occurrence": span.mean(),
                    "n_occurrences": len(sample.latents),
                    "n_patients": sample.latents.table["patient_id"].n_unique(),
                    "reason": sample.reason,
                }
            )
            if sample.reason is None:
                deltas[lemma.lemma, pooling] = resampled_delta(sample, depth, statistics)
    for row in rows:
        if (own := deltas.get((row["lemma"], row["pooling"]))) is not None:
            usual = deltas[row["lemma"], chosen]
            row |= own.columns("delta") | own.minus(usual).columns("change")
    texts = dict.fromkeys(("lemma", "pooling", "reason"), pl.String)
    whole = dict.fromkeys(("k", "n_occurrences", "n_patients"), pl.Int64)
    types = texts | whole | {"chosen": pl.Boolean}
    schema = {name: types.get(name, pl.Float64) for name in POOLING[3:]}
    return tidy(pl.DataFrame(rows, schema=schema).sort("lemma", "pooling"))


def _draw(occurrences: pl.DataFrame, seed: int) -> pl.DataFrame:
    parts = []
    for (lemma,), part in occurrences.sort("occurrence_id").group_by("lemma", maintain_order=True):
        patient = codes_of(part["patient_id"].cast(pl.String))
        kept = whole_patients(patient, MAX_COMPARED, stream(seed, "poolings", lemma))
        parts.append(part.filter(pl.Series(kept)))
    return pl.concat(parts) if parts else occurrences
