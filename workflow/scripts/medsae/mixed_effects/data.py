"""The tables of all models, layers and SAEs as the mixed-effects models need them.

Two-valued variables are Enums whose first level is the reference, so that a coefficient
reads "of the second level, compared with the first".
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import polars as pl

from medsae.statistics import stream

PLACE = ("model", "layer", "sae")
"""What every table says about where its numbers come from."""

MAX_ROWS = 60_000
"""Rows of one fit; of more a random sample is fitted, and the fit says of how many."""

POLYSEMY = pl.Enum(["control", "polysemous"])
PAIR_TYPE = pl.Enum(["cross", "within"])
NO_YES = pl.Enum(["no", "yes"])

LABELS = {
    ("pair_type", "within"): "same sense − other sense",
    ("polysemy", "polysemous"): "polysemous − control terms",
    ("linked", "yes"): "linked − random latent",
    ("on_sense", "yes"): "own − other sense",
    ("context", "within"): "same sense − other sense",
    ("context", "on sense"): "own − other sense",
}
"""What the coefficient of a level says, in words."""


def overlap_table(paths: Sequence[str | Path]) -> pl.DataFrame:
    """Δ of each ambiguous term over all pairs of patients, from every ``jaccard_at_k.csv``.

    A row per lemma, model, layer and SAE. ``jaccard`` is Δ of all K latents, which is the largest
    k of a file; ``jaccard_at_10`` that of the 10 strongest, which are all where K is smaller. Null
    where Δ is not defined.
    """
    columns = {"lemma": pl.String, "kind": pl.String, "k": pl.Int64, "delta": pl.Float64}

    def delta_at(k: pl.Expr) -> pl.Expr:
        return pl.col("delta").filter(pl.col("k") == k).first()

    n_all = pl.col("k").max()
    return (
        _gather(paths, columns)
        .filter(pl.col("kind") == "polysemous")
        .group_by("lemma", *PLACE)
        .agg(jaccard=delta_at(n_all), jaccard_at_10=delta_at(n_all.clip(upper_bound=10)))
        .collect()
    )


def jaccard_table(paths: Sequence[str | Path]) -> pl.DataFrame:
    """Overlap of sampled pairs of occurrences, from every ``jaccard_pairs.parquet``.

    Pairs of control terms are between two random halves of the term's patients.
    """
    columns = {
        **dict.fromkeys(("jaccard", "jaccard_at_10"), pl.Float64),
        **dict.fromkeys(("pair_type", "kind", "lemma", "doc_a", "doc_b"), pl.String),
        **dict.fromkeys(("sense_a", "sense_b"), pl.String),
    }
    return (
        _gather(paths, columns)
        .with_columns(
            pl.col("pair_type").cast(PAIR_TYPE),
            pl.col("kind").cast(POLYSEMY).alias("polysemy"),
            pl.col("pair_type").cast(PAIR_TYPE).alias("context"),
        )
        .collect()
    )


def entropy_table(paths: Sequence[str | Path]) -> pl.DataFrame:
    """Entropy of each sense, and of each control term, from every ``entropy_per_sense.csv``."""
    columns = {
        **dict.fromkeys(("normalized_entropy", "rarefied_normalized"), pl.Float64),
        **dict.fromkeys(("kind", "lemma"), pl.String),
    }
    return (
        _gather(paths, columns)
        .with_columns(pl.col("kind").cast(POLYSEMY).alias("polysemy"))
        .collect()
    )


def delta_ce_table(paths: Sequence[str | Path]) -> pl.DataFrame:
    """ΔCE of each latent at each occurrence, from every ``ablation_delta_ce.csv``.

    ``latent`` is unique over all SAEs; ``matched_to`` of a control is the ``latent_id`` whose
    control it is, of a linked latent null; ``sense`` is the linked latent's. The published
    formula takes all terms for polysemous and has its context in the sense at which a latent is
    removed.
    """
    columns = {
        **dict.fromkeys(("delta_ce", "activation"), pl.Float64),
        **dict.fromkeys(("lemma", "sense", "doc_id", "latent_id", "matched_to"), pl.String),
        **dict.fromkeys(("linked", "on_sense"), pl.Boolean),
    }
    place = pl.concat_str([*PLACE, "latent_id"], separator="/")

    def no_yes(name: str) -> pl.Expr:
        return pl.when(name).then(pl.lit("yes")).otherwise(pl.lit("no")).cast(NO_YES).alias(name)

    on_sense = pl.when("on_sense").then(pl.lit("on sense")).otherwise(pl.lit("off sense"))
    return (
        _gather(paths, columns)
        .with_columns(
            no_yes("linked"),
            no_yes("on_sense"),
            on_sense.cast(pl.Enum(["off sense", "on sense"])).alias("context"),
            pl.lit("polysemous").cast(POLYSEMY).alias("polysemy"),
            place.alias("latent"),
        )
        .collect()
    )


def controls_first(table: pl.DataFrame, random_models: Collection[str]) -> pl.DataFrame:
    """``table`` with its models as levels: those with random weights first, then by name.

    The first is the reference of those without a control of their own.
    """
    names = table["model"].cast(pl.String).unique().to_list()
    order = sorted(names, key=lambda name: (name not in random_models, name))
    return table.with_columns(pl.col("model").cast(pl.Enum(order)))


def sample_rows(table: pl.DataFrame, seed: int, *names: str) -> pl.DataFrame:
    """At most `MAX_ROWS` rows in a fixed order, whatever the order they come in."""
    ordered = table.sort(table.columns)
    if ordered.height <= MAX_ROWS:
        return ordered
    chosen = stream(seed, "mixed effects", *names).permutation(ordered.height)[:MAX_ROWS]
    return ordered[sorted(chosen.tolist())]


def _gather(paths: Sequence[str | Path], columns: dict[str, type[pl.DataType]]) -> pl.LazyFrame:
    wanted = columns | dict.fromkeys(PLACE, pl.String)
    parts = []
    for path in map(Path, paths):
        if path.suffix == ".parquet":
            part = pl.scan_parquet(path)
        else:
            part = pl.scan_csv(path, schema_overrides=wanted)
        parts.append(part.select(pl.col(name).cast(dtype) for name, dtype in wanted.items()))
    return pl.concat(parts)
