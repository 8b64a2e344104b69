"""The notes under study, and how often each term occurs in each sense."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medsae.report.marks import CONTROL_STEP, annotate, limits, row_labels
from medsae.report.style import (
    CONTROL,
    FLOOR,
    INK,
    SENSES,
    WIDTH_IN,
    headline,
    page,
    sentence_figure,
)
from medsae.report.tables import number

LETTER_IN = 0.062  # mean width of a letter of a bar's label


def count_occurrences(occurrences: pl.DataFrame) -> pl.DataFrame:
    """Occurrences, notes and patients of every term and sense.

    ``occurrences`` is ``occurrences.parquet``. Columns: lemma, kind, sense (null: no sense
    assigned, or a term with one meaning), n_occurrences, n_docs, n_patients and
    n_patients_of_term.
    """
    patients = occurrences.group_by("lemma").agg(n_patients_of_term=pl.col("patient_id").n_unique())
    return (
        occurrences.group_by("lemma", "kind", "sense")
        .agg(
            n_occurrences=pl.len(),
            n_docs=pl.col("doc_id").n_unique(),
            n_patients=pl.col("patient_id").n_unique(),
        )
        .join(patients, on="lemma")
        .sort("kind", "lemma", "sense", descending=[True, False, False], nulls_last=True)
    )


def patients_sentence(summary: Mapping[str, Any]) -> str:
    """How many notes and patients, from ``notes/summary.json``, and what counts as a patient."""
    notes = f"{summary['n_notes']:,} notes"
    if summary["patient_ids"] == "given":
        return f"{notes} of {summary['n_patients']:,} patients"
    return f"{notes}; without patient ids, each note counts as its own patient"


def draw_corpus(counts: pl.DataFrame, summary: Mapping[str, Any], min_occurrences: int) -> Figure:
    """Stacked bars of occurrences per sense, one row per term, from ``count_occurrences``."""
    title = patients_sentence(summary)
    if counts.is_empty():
        return sentence_figure(title, "No term of the lexicon occurs in the notes.")
    kinds = [
        counts.filter(pl.col("kind") == kind)["lemma"].unique(maintain_order=True).to_list()
        for kind in ("polysemous", "control")
    ]
    lemmas = kinds[0] + kinds[1]
    n_terms = len(kinds[0])
    rows = [float(index) for index in range(n_terms)]
    rows += [n_terms + 0.4 + CONTROL_STEP * index for index in range(len(kinds[1]))]
    n_rows = rows[-1] + 1
    figure, (axis,) = page(n_rows * 0.24, left_in=1.6, right_in=0.8, top_in=0.85)
    headline(
        figure,
        title,
        f"Occurrences of each term by sense. Hatched: fewer than {min_occurrences}, too few to "
        "study. At the right: patients.",
    )
    of_term = counts.group_by("lemma").agg(pl.col("n_occurrences").sum())
    axis.set_xlim(0, number(of_term["n_occurrences"].max()))
    for row, lemma in zip(rows, lemmas, strict=True):
        senses = counts.filter(pl.col("lemma") == lemma)
        _stack(axis, row, senses, min_occurrences)
        annotate(axis, 1.01, row, f"{senses['n_patients_of_term'][0]:,}")
    row_labels(axis, rows, lemmas)
    for tick in axis.get_yticklabels()[n_terms:]:
        tick.set_fontsize(7)
    limits(axis, n_rows)
    axis.set_xlabel("occurrences")
    return figure


def _stack(axis: Axes, row: float, senses: pl.DataFrame, min_occurrences: int) -> None:
    start = 0
    for index, (kind, sense, n) in enumerate(
        senses.select("kind", "sense", "n_occurrences").iter_rows()
    ):
        if sense is not None:
            color, name = SENSES[index % len(SENSES)], sense
            ink = "white" if index == 0 else INK
        elif kind == "control":
            color, name, ink = CONTROL, "", "white"
        else:
            color, name, ink = FLOOR, "unresolved", INK
        rare = sense is not None and n < min_occurrences
        axis.barh(
            row,
            n,
            left=start,
            height=0.74 if kind == "polysemous" else 0.5,
            color=color,
            edgecolor="white",
            lw=0.8,
            hatch="////" if rare else None,
        )
        room = n * axis.get_position().width * WIDTH_IN / axis.get_xlim()[1]
        for text in (f"{name} {n}".strip(), str(n)):
            if len(text) * LETTER_IN < room:
                axis.text(
                    start + n / 2,
                    row,
                    text,
                    fontsize=7 if kind == "polysemous" else 6,
                    color=ink,
                    ha="center",
                    va="center",
                )
                break
        start += n
