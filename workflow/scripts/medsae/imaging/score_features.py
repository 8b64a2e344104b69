"""Monosemanticity of every feature of one SAE, streamed from its ``features.parquet``."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from medsae.imaging import columns as col
from medsae.imaging.artifacts import feature_batches, level_sizes, n_latents_of, rows_of_split
from medsae.imaging.concepts import concepts_of
from medsae.imaging.monosemanticity import LARGE, feature_scores
from medsae.imaging.top_slices import top_slices
from medsae.io import UserError
from medsae.statistics import codes_of


def score_features(
    features: str | Path,
    slices: pl.DataFrame,
    sae_config: str | Path,
    splits: Sequence[str],
    seed: int,
) -> pl.DataFrame:
    """``feature_scores.csv`` of one SAE over the slices of ``splits``.

    Organs are judged on slices that have masks, everything else on all. Raises ``UserError``
    if they are empty.
    """
    pool = np.zeros(slices.height, dtype=bool)
    pool[rows_of_split(slices, *splits)] = True
    if not pool.any():
        raise UserError(f"{features}: no slice of {' and '.join(splits)} to score features on.")
    labelled = pool & slices[col.ORGANS].is_not_null().to_numpy()
    scan = codes_of(slices[col.SCAN])
    n_latents = n_latents_of(sae_config)
    top = top_slices(feature_batches(features), scan, pool, n_latents, LARGE)
    labelled_top = top
    if (labelled != pool).any():
        labelled_top = top_slices(feature_batches(features), scan, labelled, n_latents, LARGE)
    return feature_scores(
        top,
        labelled_top,
        concepts_of(slices),
        scan,
        pool,
        labelled,
        level_sizes(sae_config),
        seed,
    )
