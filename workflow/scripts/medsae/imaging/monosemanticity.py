"""Does a feature stand for one thing? Coherence and specificity of the slices it picks.

Published definition, over the N slices (one per scan) with the largest activation:

    C = max(0, mean pairwise Jaccard of their organ sets − its mean over random slices)
    S = 1 − H(organ counts) / ln(organs),    M = C · S,

two slices without any organ being alike (Jaccard 1) but specific to nothing (S = 0).

Masks of different scans cover different structures. Two slices are compared on the structures
that the masks of both could have shown, and not at all if there are none; an organ's count is
its share of the slices for which it is known. Where every mask covers everything this is the
published definition. M needs `MIN_SCANS` scans that can be compared: what two scans have in
common is no concept.

Beside it: every concept (modality, plane, sex, age, organs, metadata) has a lift, the share
of the N slices that show it, beyond its prevalence in the pool: (p − π) / (1 − π), 1 for a
feature that shows nothing else and 0 at chance. Nulls: slices that shuffled activations
would have picked, as many as the feature retrieved; for the lift, of the best of all
concepts, so that looking at many of them costs what it must. There is no p-value where even a
perfect feature could not reach `ALPHA`, or with fewer than `MIN_POOL` scans to draw from.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import hypergeom

from medsae.imaging.concepts import ORGAN, Concepts
from medsae.imaging.result_columns import FEATURE_SCORES
from medsae.imaging.top_slices import TopSlices, random_top_slices
from medsae.statistics import benjamini_hochberg, pvalue_greater, stream

SMALL, LARGE = 10, 50
"""Slices per feature that M is computed from."""

MIN_SCANS = 5
"""Scans that a feature must be seen on before anything is said about what it stands for."""

MIN_POOL = 20
"""Scans that a null must draw from: of ten, shuffled activations pick nearly the same ones."""

N_NULL = 1000
SHARED = 0.75
N_BEST = 10
"""M of a configuration is the mean of its best features' M."""

CHUNK = 256
ALPHA = 0.05
ALWAYS_ACTIVE = "active on every slice"


@dataclass(frozen=True)
class SetScores:
    """Mean pairwise ``jaccard`` and ``specificity`` of sets of slices [F], and how many slices of
    each could be compared with another (``n_comparable``); NaN where none could."""

    jaccard: NDArray[np.float64]
    specificity: NDArray[np.float64]
    n_comparable: NDArray[np.int64]


def set_scores(organs: Concepts, rows: NDArray[np.integer]) -> SetScores:
    """Scores of the slices ``rows`` [F, N] (−1: none) by what is known of their ``organs``."""
    jaccard = np.full(len(rows), np.nan)
    specificity = np.full(len(rows), np.nan)
    n_comparable = np.zeros(len(rows), np.int64)
    all_known = organs.known.size > 0 and bool(organs.known.all())
    for begin in range(0, len(rows), CHUNK):
        block = rows[begin : begin + CHUNK]
        here = slice(begin, begin + CHUNK)
        shown = organs.present[block].astype(np.float32)
        shown[block < 0] = 0
        if all_known:
            found = (block >= 0).astype(np.float32)
            jaccard[here], n_comparable[here] = _mean_similarity(shown, found)
            n_known = np.repeat(found.sum(1, dtype=np.float64)[:, None], shown.shape[2], axis=1)
        else:
            known = organs.known[block].astype(np.float32)
            known[block < 0] = 0
            jaccard[here], n_comparable[here] = _mean_similarity_of_known(shown, known)
            n_known = known.sum(1, dtype=np.float64)
        usable = n_known >= 2
        n_organs = usable.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(usable, shown.sum(1) / n_known, 0)
            p = share / share.sum(1, keepdims=True)
            entropy = -np.where(p > 0, p * np.log(p), 0).sum(1) / np.log(n_organs)
        specific = np.where(share.sum(1) > 0, 1 - entropy, 0.0)
        specificity[here] = np.where(n_organs > 1, specific, np.nan)
    return SetScores(jaccard, specificity, n_comparable)


def _mean_similarity(
    shown: NDArray[np.float32], found: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean pairwise Jaccard [F] of ``shown`` [F, N, K] where ``found`` [F, N], and how many are.

    Every mask covers everything here, so what two slices could show is all there is.
    """
    nothing = (shown.sum(2, keepdims=True) == 0).astype(np.float32)  # alike: one more organ
    sets = np.concatenate([shown, nothing], axis=2)
    similar = sets @ sets.transpose(0, 2, 1)
    size = sets.sum(2)
    either = size[:, :, None] + size[:, None, :]
    either -= similar
    np.divide(similar, either, out=similar)
    similar *= found[:, None, :]
    similar *= found[:, :, None]
    n = found.sum(1, dtype=np.float64)
    total = similar.sum((1, 2), dtype=np.float64) - n
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / (n * (n - 1)), np.where(n > 1, n, 0).astype(np.int64)


def _mean_similarity_of_known(
    shown: NDArray[np.float32], known: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """As ``_mean_similarity`` over what both masks could have shown, ``known`` [F, N, K]."""
    flipped = shown.transpose(0, 2, 1)
    both = shown @ flipped
    seen = known @ flipped  # of what one slice shows, what the other could show
    either = seen + seen.transpose(0, 2, 1) - both
    similar = np.divide(both, either, out=np.ones_like(both), where=either > 0)
    themselves = np.eye(shown.shape[1], dtype=bool)
    compared = (known @ known.transpose(0, 2, 1) > 0) & ~themselves
    total = (similar * compared).sum((1, 2), dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / compared.sum((1, 2)), compared.any(2).sum(1)


def lifts(
    concepts: Concepts, prevalence: NDArray[np.float64], rows: NDArray[np.integer]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Share and lift [F, K] of each concept among ``rows`` [F, N] (−1: none).

    Shares are of the slices for which a concept is known; NaN where these are fewer than two
    or than half. Lifts are NaN too where the concept has no room to stand out (π = 0 or 1).
    """
    n_concepts = len(concepts.names)
    share = np.full((len(rows), n_concepts), np.nan, dtype=np.float32)
    for begin in range(0, len(rows), CHUNK):
        block = rows[begin : begin + CHUNK]
        valid = (block >= 0)[:, :, None]
        known = (concepts.known[block] & valid).sum(1)
        shown = (concepts.present[block] & valid).sum(1)
        enough = (known >= 2) & (2 * known >= valid.sum(1))
        share[begin : begin + CHUNK] = np.where(enough, shown / np.maximum(known, 1), np.nan)
    room = np.where((prevalence > 0) & (prevalence < 1), 1 - prevalence, np.nan)
    return share, ((share - prevalence) / room).astype(np.float32)


def feature_scores(
    top: TopSlices,
    labelled_top: TopSlices,
    concepts: Concepts,
    scan: NDArray[np.integer],
    pool: NDArray[np.bool_],
    labelled: NDArray[np.bool_],
    level_sizes: list[int],
    seed: int,
) -> pl.DataFrame:
    """``feature_scores.csv``: one row per feature, all features.

    ``top``: the best slices of ``pool`` [n], at least 10 per feature; ``labelled_top``: the
    best of those with masks (``labelled`` [n]), at least 50. The two may be the same.
    """
    scored = ~top.always_active & (top.n_active > 0)
    organs = concepts.of_family(ORGAN)
    with ThreadPoolExecutor() as at_once:
        parts = [
            at_once.submit(_published, labelled_top.row[:, :n], organs, scan, labelled, n, seed)
            for n in (SMALL, LARGE)
        ]
        best = _best_concepts(top.row[:, :SMALL], concepts, scan, pool, seed)
        published = parts[0].result() | parts[1].result()
    features = np.arange(len(top.row))
    table = pl.DataFrame(
        {
            "feature_idx": features,
            "dict_level": np.searchsorted(np.asarray(level_sizes), features, side="right"),
            **published,
            "n_nonzero_activations": top.n_active,
            "n_retrieved": labelled_top.n_retrieved,
            **best,
            "n_retrieved_any": top.n_retrieved,
        },
        schema_overrides={"concept": pl.String, "shared_concepts": pl.String},
    )
    few = np.isnan(published["monosemanticity_10"])
    reason = (
        pl.when(pl.lit(top.always_active))
        .then(pl.lit(ALWAYS_ACTIVE))
        .when(pl.lit(top.n_active == 0))
        .then(pl.lit("never active"))
        .when(pl.lit(few))
        .then(pl.lit(f"seen on fewer than {MIN_SCANS} scans with comparable masks"))
    )
    values = [
        name
        for name in table.columns
        if name not in {"feature_idx", "dict_level"} and not name.startswith("n_")
    ]
    table = table.with_columns(
        *(pl.when(pl.lit(scored)).then(pl.col(name)).alias(name) for name in values),
        reason=reason,
    ).fill_nan(None)
    return table.with_columns(
        *(
            pl.Series(f"{kind}_qvalue", _adjusted(table[f"{kind}_pvalue"])).fill_nan(None)
            for kind in ("coherence", "lift")
        )
    ).select(FEATURE_SCORES)


def _published(
    rows: NDArray[np.int64],
    organs: Concepts,
    scan: NDArray[np.integer],
    labelled: NDArray[np.bool_],
    n: int,
    seed: int,
) -> dict[str, NDArray]:
    scores = set_scores(organs, rows)
    enough = scores.n_comparable >= MIN_SCANS
    jaccard = np.where(enough, scores.jaccard, np.nan)
    n_retrieved = (rows >= 0).sum(1)
    null_mean = np.full(len(rows), np.nan)
    pvalue = np.full(len(rows), np.nan)
    n_pool = len(np.unique(scan[labelled]))
    for size in np.unique(n_retrieved[enough]):
        drawn = random_top_slices(scan, labelled, N_NULL, size, stream(seed, "coherence", size))
        null = set_scores(organs, drawn).jaccard
        null = null[~np.isnan(null)]
        here = enough & (n_retrieved == size)
        null_mean[here] = null.mean() if len(null) else np.nan
        pvalue[here] = _pvalues(jaccard[here], null, n_pool)
    coherence = np.maximum(jaccard - null_mean, 0)
    result = {
        f"coherence_{n}": coherence,
        f"specificity_{n}": np.where(enough, scores.specificity, np.nan),
        f"monosemanticity_{n}": coherence * scores.specificity,
    }
    if n == SMALL:
        result["n_comparable"] = scores.n_comparable
        with np.errstate(divide="ignore", invalid="ignore"):
            result["pct_above_null"] = 100 * (jaccard / null_mean - 1)
        result["coherence_pvalue"] = pvalue
    return result


def _pvalues(
    values: NDArray[np.floating], null: NDArray[np.floating], n_pool: int
) -> NDArray[np.float64]:
    """p of ``values`` against draws of ``null``, both at most 1; NaN where none can be small."""
    ordered = np.sort(null)

    def of(value: Any) -> NDArray[np.float64]:
        reaching = len(null) - np.searchsorted(ordered, value - 1e-6)
        return np.asarray(pvalue_greater(reaching, len(null)))

    if n_pool < MIN_POOL or float(of(np.float64(1))) > ALPHA:
        return np.full(len(values), np.nan)
    return np.where(np.isnan(values), np.nan, of(values))


def _best_concepts(
    rows: NDArray[np.int64],
    concepts: Concepts,
    scan: NDArray[np.integer],
    pool: NDArray[np.bool_],
    seed: int,
) -> dict[str, Any]:
    if not concepts.names or not pool.any():
        nothing = np.full(len(rows), np.nan)
        names = ("concept_share", "concept_prevalence", "concept_lift", "lift_pvalue")
        nobody = np.full(len(rows), None)
        return {"concept": nobody, "shared_concepts": nobody} | dict.fromkeys(names, nothing)
    # prevalence as the retrieval sees it: one slice per scan
    drawn = random_top_slices(scan, pool, N_NULL, rows.shape[1], stream(seed, "prevalence"))
    known = concepts.known[drawn].sum((0, 1))
    prevalence = concepts.present[drawn].sum((0, 1)) / np.maximum(known, 1)
    share, lift = lifts(concepts, prevalence, rows)
    n_retrieved = (rows >= 0).sum(1)
    enough = n_retrieved >= MIN_SCANS
    filled = np.where(np.isnan(lift) | ~enough[:, None], -np.inf, lift)
    winner = filled.argmax(1)
    every = np.arange(len(rows))
    largest: NDArray = filled[every, winner]
    pvalue = np.full(len(rows), np.nan)
    n_pool = len(np.unique(scan[pool]))
    for size in np.unique(n_retrieved[enough]):
        drawn = random_top_slices(scan, pool, N_NULL, size, stream(seed, "lift", size))
        null = np.nanmax(lifts(concepts, prevalence, drawn)[1], axis=1, initial=-1)
        here = enough & (n_retrieved == size)
        pvalue[here] = _pvalues(largest[here], null, n_pool)
    found = np.isfinite(largest) & (largest > 0)
    name = np.array(concepts.names, dtype=object)[winner]
    name[~found] = None
    return {
        "concept": name.tolist(),
        "concept_share": np.where(found, share[every, winner], np.nan),
        "concept_prevalence": np.where(found, prevalence[winner], np.nan),
        "concept_lift": np.where(found, largest, np.nan),
        "lift_pvalue": np.where(np.isfinite(largest), pvalue, np.nan),
        "shared_concepts": _shared(share, enough, concepts.names),
    }


def _shared(
    share: NDArray[np.floating], enough: NDArray[np.bool_], names: tuple[str, ...]
) -> list[str | None]:
    """Concepts with a ``share`` [F, K] of at least three quarters, joined by ';'."""
    each = np.array(names, dtype=object)
    return [
        ";".join(each[line >= SHARED]) if told else None
        for line, told in zip(share, enough, strict=True)
    ]


def configuration_scores(table: pl.DataFrame, fixed_size: int | None = None) -> dict[str, Any]:
    """What ``feature_scores.csv`` says of a whole SAE.

    ``M_config``: mean of the ten best M10 (published). ``M_config_fixed``: its expectation
    if only ``fixed_size`` of the scored features could be seen, so that a larger dictionary
    is not better for having more draws. ``breadth``: mean M50/M10.
    """
    scored = table.filter(pl.col("monosemanticity_10").is_not_null())
    m = np.sort(scored["monosemanticity_10"].to_numpy())[::-1]
    ratio = scored.filter(pl.col("monosemanticity_10") > 0).select(
        (pl.col("monosemanticity_50") / pl.col("monosemanticity_10")).mean()
    )
    found = {
        f"n_{kind}_{what}": int(counted.fill_null(False).sum())
        for kind in ("coherence", "lift")
        for what, counted in (
            ("tested", table[f"{kind}_qvalue"].is_not_null()),
            ("found", table[f"{kind}_qvalue"] < ALPHA),
        )
    }
    return {
        "n_features": table.height,
        "n_never_active": int((table["n_nonzero_activations"] == 0).sum()),
        "n_scored": len(m),
        "M_config": float(m[:N_BEST].mean()) if len(m) else None,
        "fixed_size": fixed_size,
        "M_config_fixed": expected_best(m, fixed_size) if fixed_size else None,
        "breadth": ratio[0, 0],
        "mean_lift": scored["concept_lift"].mean(),
        **found,
    }


def expected_best(values: NDArray[np.floating], size: int, n_best: int = N_BEST) -> float | None:
    """Expected mean of the ``n_best`` largest among ``size`` of ``values`` drawn at random.

    The r-th largest value counts if it is drawn and fewer than n_best of the r − 1 larger
    ones are: a hypergeometric tail. None if there are fewer than ``size`` values.
    """
    ordered = np.sort(np.asarray(values, np.float64))[::-1]
    n = len(ordered)
    if n < size or size < 1:
        return None
    kept = min(n_best, size)
    larger = np.arange(n)
    # given that a value is drawn, the other size − 1 come from the n − 1 remaining ones
    chance = size / n * hypergeom.cdf(kept - 1, n - 1, larger, size - 1)
    return float((chance * ordered).sum() / kept)


def _adjusted(pvalues: pl.Series) -> NDArray[np.float64]:
    return benjamini_hochberg(pvalues.cast(pl.Float64).fill_null(float("nan")).to_numpy())
