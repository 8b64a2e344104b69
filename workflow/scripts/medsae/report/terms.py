"""For each term in words: are its senses separated, by how much, against which control?"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from medsae.report.document import Block, Bullets, Table
from medsae.report.phrases import estimated, of_row, q_is, small
from medsae.report.tables import ALPHA, at_headline_k, beyond_chance, significant

Row = Mapping[str, Any]

HEADER = (
    "term",
    "senses",
    "separated",
    "Δ",
    "q",
    "within",
    "across",
    "polysemy index",
    "cuts of controls, 95% of |Δ| below",
    "occurrences",
    "patients",
)


def term_blocks(jaccard: pl.DataFrame, gains: Mapping[str, Row]) -> list[Block]:
    """A sentence per ambiguous term and the table behind it, for one SAE.

    ``jaccard`` is its ``jaccard_at_k.csv``; ``gains`` has by term the rows of its
    ``training_gain.csv``, if there is one.
    """
    at_k, k = at_headline_k(jaccard)
    terms = at_k.filter(pl.col("kind") == "polysemous").with_columns(
        significant("delta").alias("separated"), beyond_chance().alias("beyond")
    )
    terms = terms.sort(["delta", "lemma"], descending=[True, False], nulls_last=True)
    sentences, rows = [], []
    for row in terms.iter_rows(named=True):
        sentences.append(_sentence(row, k, gains.get(row["lemma"])))
        rows.append(_cells(row))
    return [Bullets(tuple(sentences)), Table(HEADER, tuple(rows), n_text=3)]


def _senses(row: Row) -> str:
    return " / ".join([row["sense1"] or "", *(row["sense2"] or "").split("|")]).strip(" /")


def _counts(row: Row) -> str:
    return f"{row['n_occurrences1'] or 0} + {row['n_occurrences2'] or 0}"


def _verdict(row: Row) -> str:
    if row["qvalue"] is None:
        return f"no verdict ({row['reason'] or 'not testable'})"
    if row["separated"]:
        within = row["beyond"] is False
        return "separated" + (", but by no more than random cuts of controls" if within else "")
    if row["qvalue"] < ALPHA and row["delta_low"] is None:
        return f"not shown to be separated (q is small, but {row['reason']})"
    if row["qvalue"] < ALPHA:
        return "not shown to be separated (q is small, but the interval of Δ reaches zero)"
    return "not shown to be separated"


def _sentence(row: Row, k: int, gain: Row | None) -> str:
    name = f"**{row['lemma']}** ({_senses(row)})" if _senses(row) else f"**{row['lemma']}**"
    if row["delta"] is None:
        return f"{name}: not enough data: {row['reason'] or 'not estimable'}."
    parts = [
        f"{name}: {_verdict(row)}. Two occurrences share {estimated(of_row(row, 'within'))} of "
        f"their {k} strongest latents within a sense and {estimated(of_row(row, 'cross'))} across: "
        f"Δ = {estimated(of_row(row, 'delta'))}, {q_is(row['qvalue'])} against senses shuffled "
        f"among patients; {_counts(row)} occurrences, {row['n_patients']} patients."
    ]
    if row["chance_delta_95"] is not None:
        parts.append(
            "Random cuts of controls of like frequency: 95% have |Δ| below "
            f"{small(row['chance_delta_95'])}."
        )
    if gain is not None:
        parts.append(
            f"With random weights Δ = {estimated(of_row(gain, 'delta_untrained'))}: training adds "
            f"{estimated(of_row(gain, 'gain'), signed=True)}."
        )
    return " ".join(parts)


def _cells(row: Row) -> tuple[str, ...]:
    if row["delta"] is None:
        verdict = "not enough data"
    elif row["qvalue"] is None:
        verdict = "not testable"
    elif row["separated"]:
        verdict = "yes, within cuts" if row["beyond"] is False else "yes"
    else:
        verdict = "not shown"
    estimates = [
        "" if row[name] is None else estimated(of_row(row, name))
        for name in ("delta", "within", "cross", "polysemy_index")
    ]
    q = "" if row["qvalue"] is None else q_is(row["qvalue"]).removeprefix("q ").removeprefix("= ")
    return (
        row["lemma"],
        _senses(row),
        verdict,
        estimates[0],
        q,
        *estimates[1:],
        "" if row["chance_delta_95"] is None else small(row["chance_delta_95"]),
        _counts(row),
        str(row["n_patients"]),
    )
