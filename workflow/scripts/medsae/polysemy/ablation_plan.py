"""Which latents are removed at which occurrences: chosen before any model is loaded."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from medsae.statistics import stream


def read_linked(path: str | Path) -> pl.DataFrame:
    """The table of sense-linked latents, which may be empty."""
    types = {
        **dict.fromkeys(("lemma", "sense"), pl.String),
        "latent_id": pl.Int64,
        "presence_rate_diff": pl.Float64,
        **dict.fromkeys(("discovered", "confirmed"), pl.Boolean),
    }
    return pl.read_csv(path, columns=list(types), schema_overrides=types)


def choose_latents(linked: pl.DataFrame, max_per_sense: int) -> pl.DataFrame:
    """lemma, sense, latent_id: the confirmed sense-linked latents with the largest rate difference.

    ``linked``: the table of sense-linked latents.
    """
    return (
        linked.filter(pl.col("confirmed"))
        .sort(
            "lemma",
            "sense",
            "presence_rate_diff",
            "latent_id",
            descending=[False] * 2 + [True, False],
        )
        .group_by("lemma", "sense", maintain_order=True)
        .head(max_per_sense)
        .select("lemma", "sense", pl.col("latent_id").cast(pl.Int64))
    )


def choose_occurrences(
    occurrences: pl.LazyFrame, latents: pl.DataFrame, max_per_latent: int, seed: int
) -> pl.DataFrame:
    """Which latent is removed where: one row per latent and occurrence at which it fires.

    For each latent, up to ``max_per_latent`` occurrences of its sense and as many of the term's
    other senses, so that it can be compared with itself: patients in random order, a second
    occurrence of a patient only after all patients had one. The latents of a sense share the
    order, so they share occurrences, and passes of the model, where they fire together.
    ``occurrences``: the table of pooled latents; occurrences without a sense are left out.
    """
    known = occurrences.filter(pl.col("sense").is_not_null()).select(
        pl.col("occurrence_id").cast(pl.Int64),
        *("doc_id", "patient_id", "lemma", "token_positions"),
        pl.col("sense").alias("occurrence_sense"),
        pl.col("latent_ids").cast(pl.List(pl.Int64)).alias("latent_id"),
    )
    firing = (
        known.select("occurrence_id", "lemma", "latent_id")
        .join(latents.lazy().select("lemma").unique(), on="lemma", how="semi")
        .explode("latent_id")
        .join(latents.lazy(), on=["lemma", "latent_id"])
        .join(known.drop("latent_id", "lemma"), on="occurrence_id")
        .with_columns((pl.col("occurrence_sense") == pl.col("sense")).alias("on_sense"))
        .with_columns(pl.col("doc_id", "patient_id", "occurrence_sense").cast(pl.String))
        .collect()
    )
    role = ["lemma", "sense", "on_sense"]
    places = firing.select(*role, "occurrence_id").unique().sort(*role, "occurrence_id")
    order = [
        part.with_columns(
            pl.Series("order", stream(seed, "ablation", *key).permutation(part.height))
        )
        for key, part in places.group_by(role, maintain_order=True)
    ]
    if not order:
        return firing.clear()
    of_latent = [*role, "latent_id"]
    return (
        firing.join(pl.concat(order), on=[*role, "occurrence_id"])
        .sort(*of_latent, "order")
        .with_columns(pl.int_range(pl.len()).over([*of_latent, "patient_id"]).alias("turn"))
        .sort(*of_latent, "turn", "order")
        .group_by(of_latent, maintain_order=True)
        .head(max_per_latent)
        .select(firing.columns)
        .sort("doc_id", "occurrence_id", "sense", "latent_id")
    )


def read_documents(tokens: Sequence[str | Path], doc_ids: pl.Series) -> dict[str, np.ndarray]:
    """Token ids of the documents ``doc_ids``, from the token tables ``tokens``."""
    documents: dict[str, np.ndarray] = {}
    for path in tokens:
        rows = (
            pl.scan_parquet(path)
            .select(pl.col("doc_id").cast(pl.String), "token_index", "token_id")
            .filter(pl.col("doc_id").is_in(doc_ids.implode()))
            .sort("doc_id", "token_index")
            .group_by("doc_id", maintain_order=True)
            .agg("token_id")
            .collect()
        )
        documents |= {doc_id: np.asarray(ids) for doc_id, ids in rows.iter_rows()}
    return documents
