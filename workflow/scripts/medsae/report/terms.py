"""For each term in words: are its senses separated, by how much, against which control?"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from medsae.report.document import Block, Bullets, Table
from medsae.report.means import mean_over_terms
from medsae.report.phrases import Estimate, estimated, of_row, q_is
from medsae.report.tables import ALPHA, at_headline_k, significant

Row = Mapping[str, Any]

HEADER = (
    "term",
    "senses",
    "separated",
    "Δ",
    "q",
    "within",
    "across",
    "controls Δ",
    "occurrences",
    "patients",
)


def term_blocks(jaccard: pl.DataFrame, random: pl.DataFrame | None) -> list[Block]:
    """A sentence per ambiguous term and the table behind it, for one SAE.

    ``jaccard`` is its ``jaccard_at_k.csv``; ``random`` the same of a model with random
    weights, if there is one.
    """
    at_k, k = at_headline_k(jaccard)
    terms = at_k.filter(pl.col("kind") == "polysemous").with_columns(
        significant("delta").alias("separated")
    )
    terms = terms.sort(["delta", "lemma"], descending=[True, False], nulls_last=True)
    deltas = dict(
        at_k.filter(pl.col("kind") == "control").select("lemma", "delta").drop_nulls().iter_rows()
    )
    chance = {} if random is None else _by_lemma(random)
    sentences, rows = [], []
    for row in terms.iter_rows(named=True):
        control = _matched_delta(row["matched_controls"], deltas)
        sentences.append(_sentence(row, k, control, chance.get(row["lemma"])))
        rows.append(_cells(row, control))
    return [Bullets(tuple(sentences)), Table(HEADER, tuple(rows), n_text=3)]


def _by_lemma(jaccard: pl.DataFrame) -> dict[str, Row]:
    at_k, _ = at_headline_k(jaccard)
    terms = at_k.filter(pl.col("kind") == "polysemous")
    return {row["lemma"]: row for row in terms.iter_rows(named=True)}


def _matched_delta(names: str | None, deltas: dict[str, float]) -> Estimate | None:
    """Mean Δ over the controls nearest in frequency, with its interval over controls."""
    values = [deltas[name] for name in (names or "").split("|") if name in deltas]
    if not values:
        return None
    mean = mean_over_terms("delta", pl.Series(values, dtype=pl.Float64))
    return of_row(mean, "delta")


def _senses(row: Row) -> str:
    return " / ".join([row["sense1"] or "", *(row["sense2"] or "").split("|")]).strip(" /")


def _counts(row: Row) -> str:
    return f"{row['n_occurrences1'] or 0} + {row['n_occurrences2'] or 0}"


def _sentence(row: Row, k: int, control: Estimate | None, random: Row | None) -> str:
    name = f"**{row['lemma']}** ({_senses(row)})" if _senses(row) else f"**{row['lemma']}**"
    if row["delta"] is None:
        return f"{name}: not enough data: {row['reason'] or 'not estimable'}."
    verdict = "separated" if row["separated"] else "not shown to be separated"
    if not row["separated"] and (row["qvalue"] or 1) < ALPHA:
        verdict += " (q is small, but the interval of Δ reaches zero)"
    parts = [
        f"{name}: {verdict}. Two occurrences share {estimated(of_row(row, 'within'))} of their "
        f"{k} strongest latents within a sense and {estimated(of_row(row, 'cross'))} across: "
        f"Δ = {estimated(of_row(row, 'delta'))}, {q_is(row['qvalue'])} against senses shuffled "
        f"among patients; {_counts(row)} occurrences, {row['n_patients']} patients."
    ]
    if control is not None:
        parts.append(f"Controls of like frequency: Δ = {estimated(control)}.")
    if random is not None:
        parts.append(f"With random weights: Δ = {estimated(of_row(random, 'delta'))}.")
    return " ".join(parts)


def _cells(row: Row, control: Estimate | None) -> tuple[str, ...]:
    if row["delta"] is None:
        verdict = "not enough data"
    else:
        verdict = "yes" if row["separated"] else "not shown"
    estimates = [
        "" if row[name] is None else estimated(of_row(row, name))
        for name in ("delta", "within", "cross")
    ]
    q = "" if row["qvalue"] is None else q_is(row["qvalue"]).removeprefix("q ").removeprefix("= ")
    return (
        row["lemma"],
        _senses(row),
        verdict,
        estimates[0],
        q,
        *estimates[1:],
        "" if control is None or row["delta"] is None else estimated(control),
        _counts(row),
        str(row["n_patients"]),
    )
