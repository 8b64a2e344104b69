"""Which features are worth naming, and which of their slices show them best."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import rankdata

from medsae.imaging.monosemanticity import ALWAYS_ACTIVE

N_FEATURES = 250
POOL, SHOWN = 20, 5


def coefficient_ranks(recovery: pl.DataFrame, n_latents: int) -> NDArray[np.float64]:
    """Rank of each feature [L] by its best place in the targets' rankings, 1 the best.

    ``recovery``: ``recovery.csv``, whose column ``features`` holds the first ten features of
    each target's probe. Features in no ranking share the last rank.
    """
    best = np.full(n_latents, np.inf)
    for cell in recovery["features"].cast(pl.String).drop_nulls().unique().sort():
        for place, feature in enumerate(map(int, cell.split(";"))):
            best[feature] = min(best[feature], place)
    return rankdata(best)


def select_features(
    scores: pl.DataFrame, recovery: pl.DataFrame, n_features: int = N_FEATURES
) -> pl.DataFrame:
    """``selected_features.csv``: the best by the mean of the two ranks.

    Columns feature_idx, rank_mono (monosemanticity on ten slices), rank_coefficient,
    rank_mean, monosemanticity_10. Features that never fire, or on every slice, are not
    eligible; those seen on too few scans for a score share the last rank.
    """
    table = scores.select(
        "feature_idx",
        "n_nonzero_activations",
        "reason",
        pl.col("monosemanticity_10").cast(pl.Float64),
        rank_coefficient=pl.Series(coefficient_ranks(recovery, scores.height)),
    ).filter(
        (pl.col("n_nonzero_activations") > 0)
        & (pl.col("reason").cast(pl.String) != ALWAYS_ACTIVE).fill_null(True)
    )
    mono = pl.Series(rankdata(-table["monosemanticity_10"].fill_null(-1.0).to_numpy()))
    return (
        table.with_columns(rank_mono=mono)
        .with_columns(rank_mean=(pl.col("rank_mono") + pl.col("rank_coefficient")) / 2)
        .sort("rank_mean", "feature_idx")
        .head(n_features)
        .select("feature_idx", "rank_mono", "rank_coefficient", "rank_mean", "monosemanticity_10")
    )


def max_min_diverse(embeddings: NDArray[np.floating], n: int) -> list[int]:
    """Greedy max-min choice of ``n`` rows of ``embeddings`` [m, d]; the first row begins.

    Each further row is the one whose nearest chosen row is least like it (cosine); ties go
    to the earlier row, which activates the feature more.
    """
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    chosen = [0] if len(unit) else []
    nearest = np.full(len(unit), -np.inf)
    while 0 < len(chosen) < min(n, len(unit)):
        nearest = np.maximum(nearest, unit @ unit[chosen[-1]])
        candidates = nearest.copy()
        candidates[chosen] = np.inf
        chosen.append(int(candidates.argmin()))
    return chosen


def hard_distractors(
    feature: int,
    described: Sequence[int],
    similarity: NDArray[np.floating],
    duplicate: NDArray[np.bool_],
    n: int,
) -> list[int]:
    """The ``n`` features most like ``feature`` whose descriptions are not true of it as well.

    ``described``: feature numbers of the rows of ``similarity`` and ``duplicate`` [m, m].
    A near duplicate of ``feature`` is left out, and so is one of a distractor already taken.
    Fewer than ``n`` if there are no more.
    """
    own = described.index(feature)
    taken: list[int] = []
    for other in np.argsort(-similarity[own], kind="stable").tolist():
        if other == own or duplicate[own, other] or any(duplicate[other, t] for t in taken):
            continue
        taken.append(other)
        if len(taken) == n:
            break
    return [described[other] for other in taken]
