"""What a person needs to look at a latent: its top tokens, entities, senses and probes.

``top_tokens_per_latent.csv`` has a row per latent and context; ``viewer_pack.json`` has the
same by latent, for a viewer. Of the notes both hold single tokens only, never a sentence;
the notes being patients' text, the files stay with them all the same.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from medsae.io import atomic_path, progress
from medsae.polysemy.top_contexts import N_CONTEXTS, TopContexts

TOP_TOKENS = (
    "latent_id",
    "rank",
    "token_str",
    "z",
    "z_norm",
    "doc_id",
    "position",
    "char_start",
    "char_end",
    "ner_labels",
)
"""Columns of ``top_tokens_per_latent.csv``; ``ner_labels`` are joined by '|'."""

N_TOKENS = 10
"""Different tokens of a latent in the pack."""

LATENTS_AT_ONCE = 2048
DIGITS = 5


def read_latent_table(path: str | Path) -> pl.DataFrame:
    """A CSV about latents of senses, whose numbers stay numbers even where it is empty."""
    types = {
        "latent_id": pl.Int64,
        **dict.fromkeys(("presence_rate_diff", "qvalue", "auroc", "ap"), pl.Float64),
        **dict.fromkeys(("lemma", "sense"), pl.String),
        "confirmed": pl.Boolean,
    }
    return pl.read_csv(path, schema_overrides=types)


def top_tokens(found: TopContexts, notes: str | Path) -> pl.DataFrame:
    """Table `TOP_TOKENS`; ``notes``: the notes table, read one row group at a time."""
    names = pl.DataFrame({"doc_id": found.documents}, schema={"doc_id": pl.String})
    contexts = found.contexts.with_row_index("order").with_columns(
        names["doc_id"].gather(found.contexts["document"]).alias("doc_id"),
        _label_names(found.contexts["label"], found.labels),
    )
    parts = []
    with pq.ParquetFile(notes) as file:
        groups = range(file.metadata.num_row_groups)
        for group in progress(groups, "Text of the top tokens, parts of the notes"):
            texts = pl.DataFrame(file.read_row_group(group, columns=["doc_id", "text"]))
            text = dict(texts.select(pl.col("doc_id", "text").cast(pl.String)).iter_rows())
            here = contexts.filter(pl.col("doc_id").is_in(list(text)))
            tokens = [
                text[doc_id][start:end]
                for doc_id, start, end in here.select(
                    "doc_id", "char_start", "char_end"
                ).iter_rows()
            ]
            parts.append(here.with_columns(pl.Series("token_str", tokens, pl.String)))
    return pl.concat(parts).sort("order").select(TOP_TOKENS)


def _label_names(masks: pl.Series, labels: list[str]) -> pl.Series:
    """Names of the labels whose bits are set, joined by '|'; one name per distinct mask."""
    distinct = masks.unique().to_list()
    named = [
        "|".join(name for bit, name in enumerate(labels) if mask >> bit & 1) for mask in distinct
    ]
    return masks.replace_strict(distinct, named, return_dtype=pl.String).alias("ner_labels")


def write_pack(
    path: str | Path,
    found: TopContexts,
    tokens: pl.DataFrame,
    calibration: pl.DataFrame,
    linked: pl.DataFrame,
    probes: pl.DataFrame,
    about: dict[str, Any],
) -> None:
    """Write ``viewer_pack.json``: ``about`` and counts of the corpus, then the alive latents.

    ``calibration``: firing_count, firing_rate and max_activation by latent_id; ``linked``
    and ``probes``: the tables of sense-linked latents and of single-latent probes. Latents
    are written `LATENTS_AT_ONCE` at a time.
    """
    alive = calibration.filter(pl.col("firing_count") > 0).sort("latent_id")
    corpus = {
        **about,
        "n_documents": len(found.documents),
        "n_tokens": found.n_tokens,
        "n_latents": calibration.height,
        "n_alive": alive.height,
        "contexts_per_latent": N_CONTEXTS,
        "entity_labels": found.labels,
        "text": "single tokens only; derived from the notes, so keep it where they may be kept",
    }
    top, shares = _top_by_latent(tokens), _entity_shares(found)
    senses = _by_latent(
        linked, ("lemma", "sense", "presence_rate_diff", "qvalue", "confirmed"), "senses"
    )
    probed = _by_latent(probes, ("lemma", "sense", "auroc", "ap"), "probes")
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        out.write(f'{{"corpus": {_json(corpus)},\n"latents": [')
        separator = "\n"
        for part in progress(list(_slices(alive)), "Viewer pack, parts"):
            table = part.select(
                pl.col("latent_id").cast(pl.Int64), "firing_count", "firing_rate", "max_activation"
            )
            for more in (top, shares, senses, probed):
                table = table.join(more, on="latent_id", how="left", maintain_order="left")
            for row in table.iter_rows(named=True):
                out.write(separator + _json(_entry(row)))
                separator = ",\n"
        out.write("\n]}\n")


def _slices(table: pl.DataFrame) -> Iterator[pl.DataFrame]:
    return table.iter_slices(LATENTS_AT_ONCE)


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["latent_id"],
        "firing_count": row["firing_count"],
        "density": row["firing_rate"],
        "max": row["max_activation"],
        "top_tokens": row["top_tokens"] or [],
        "entities": {each["label"]: each["share"] for each in row["entities"] or []},
        "senses": row["senses"] or [],
        "probes": row["probes"] or [],
    }


def _top_by_latent(tokens: pl.DataFrame) -> pl.DataFrame:
    """The `N_TOKENS` most frequent tokens among a latent's contexts, with their largest z."""
    counted = tokens.group_by("latent_id", pl.col("token_str").alias("token")).agg(
        pl.len().alias("count"), pl.col("z", "z_norm").max()
    )
    order = ["latent_id", "count", "z", "token"]
    ranked = counted.sort(order, descending=[False, True, True, False])
    return (
        ranked.group_by("latent_id", maintain_order=True)
        .head(N_TOKENS)
        .group_by("latent_id", maintain_order=True)
        .agg(pl.struct("token", "count", "z", "z_norm").alias("top_tokens"))
    )


def _entity_shares(found: TopContexts) -> pl.DataFrame:
    """Of the tokens on which a latent is active, the share inside entities of each label."""
    latent, label = found.label_firings.nonzero()
    return (
        pl.DataFrame(
            {
                "latent_id": latent,
                "label": pl.Series([found.labels[i] for i in label], dtype=pl.String),
                "share": found.label_firings[latent, label] / found.firings[latent],
            }
        )
        .with_columns(pl.col("latent_id").cast(pl.Int64))
        .sort("latent_id", "share", "label", descending=[False, True, False])
        .group_by("latent_id", maintain_order=True)
        .agg(pl.struct("label", "share").alias("entities"))
    )


def _by_latent(table: pl.DataFrame, columns: tuple[str, ...], name: str) -> pl.DataFrame:
    renamed = table.select(pl.col("latent_id").cast(pl.Int64), *columns)
    return (
        renamed.sort("latent_id", *columns[:2])
        .group_by("latent_id", maintain_order=True)
        .agg(pl.struct(*columns).alias(name))
    )


def _json(value: Any) -> str:
    return json.dumps(_rounded(value), ensure_ascii=False, allow_nan=False)


def _rounded(value: Any) -> Any:
    """``value`` with floats to `DIGITS` significant digits, which halves the file."""
    if isinstance(value, float):
        return None if value != value else float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return value
