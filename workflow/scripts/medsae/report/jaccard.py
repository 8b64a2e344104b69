"""Overlap of latents within and across the senses of each term, at a glance."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medsae.report.marks import (
    CONTROL_STEP,
    annotate,
    follow,
    intervals,
    key,
    limits,
    q_text,
    reference,
    row_labels,
    stripes,
)
from medsae.report.style import CONTROL, CROSS, CUTS, MUTED, WITHIN, headline, page, sentence_figure
from medsae.report.tables import at_headline_k, interval_columns, significant

OTHER_K = 0.3
"""How far below its row Δ of more latents is drawn."""


def draw_jaccard(table: pl.DataFrame, where: str) -> Figure:
    """One row per term: within- and cross-sense overlap, and their difference.

    ``table`` is ``jaccard_at_k.csv``; ``where`` names the model, layer and SAE. Ambiguous
    terms come first, by falling difference; then terms with one meaning, by falling overlap.
    """
    chosen, k = at_headline_k(table)
    terms = _by_difference(chosen.filter(pl.col("kind") == "polysemous"))
    controls = chosen.filter(pl.col("kind") == "control").sort(
        ["within", "lemma"], descending=[True, False], nulls_last=True
    )
    floor = chosen.filter((pl.col("kind") == "floor") & pl.col("cross").is_not_null())
    if terms.is_empty():
        return sentence_figure(where, "No ambiguous term occurs often enough in two senses.")
    rows = [float(index) for index in range(terms.height)]
    rows += [terms.height + 0.6 + CONTROL_STEP * index for index in range(controls.height)]
    shown = pl.concat([terms, controls], how="diagonal_relaxed").with_columns(
        row=pl.Series(rows), significant=significant("delta")
    )

    n_rows = rows[-1] + 1
    figure, (overlap, delta) = page(n_rows * 0.225, ratios=(1.25, 1), left_in=3.1, right_in=0.7)
    estimable = terms["delta"].is_not_null().sum()
    n_separated = terms.filter(significant("delta")).height
    headline(
        figure,
        f"{n_separated} of {estimable} ambiguous terms: the strongest latents differ by sense",
        f"{where}. Overlap of the {k} strongest latents of two occurrences in notes of different "
        "patients.",
    )
    for kind, color, size in (("polysemous", WITHIN, 5.0), ("control", CONTROL, 3.5)):
        part = shown.filter(pl.col("kind") == kind)
        shift = -0.14 if kind == "polysemous" else 0.0
        _draw(overlap, part, "within", color, size=size, shift=shift)
        _draw_cuts(delta, part)
    _draw(delta, shown, "delta", WITHIN, filled=shown["significant"])
    other = table.filter(kind="polysemous").filter(pl.col("k") != k, pl.col("delta").is_not_null())
    other = other.join(shown.select("lemma", "row"), on="lemma")
    delta.plot(other["delta"], other["row"] + OTHER_K, "|", color=WITHIN, alpha=0.6, ms=5, mew=1.1)
    _draw(
        overlap,
        shown.filter(pl.col("kind") == "polysemous"),
        "cross",
        CROSS,
        marker="D",
        size=4.5,
        shift=0.14,
    )
    for row, value, reason, q in shown.select("row", "within", "reason", "qvalue").iter_rows():
        if reason and value is None:
            annotate(overlap, 0.01, row, reason)
        annotate(delta, 1.03, row, q_text(q))
    delta.text(1.03, 1.0, "q", transform=delta.transAxes, fontsize=7.5, color=MUTED, va="bottom")
    key(
        overlap,
        [("o", WITHIN, "same sense"), ("D", CROSS, "other sense"), ("o", CONTROL, "one meaning")],
    )
    bars = [("|", WITHIN, "of more latents")] if other.height else []
    key(delta, [*bars, ("s", CUTS, "random cuts")])
    row_labels(
        overlap,
        rows,
        shown["lemma"].to_list(),
        [_detail(row) for row in shown.iter_rows(named=True)],
        [8.5] * terms.height + [7.0] * controls.height,
    )
    follow(delta)
    for axis in (overlap, delta):
        stripes(axis, rows)
    reference(delta, 0.0)
    if not floor.is_empty():
        reference(overlap, floor["cross"][0], "two different words", row=terms.height - 0.25)
    limits(overlap, n_rows)
    overlap.set_xlim(left=0)
    overlap.set_xlabel("overlap (Jaccard)")
    delta.set_xlabel("Δ: same sense minus other sense")
    return figure


def _draw_cuts(axis: Axes, part: pl.DataFrame) -> None:
    """Where 95% of the random cuts of terms with one meaning lie: a band behind the points."""
    low, high = (part[f"chance_delta_{side}"].cast(pl.Float64) for side in ("low", "high"))
    axis.hlines(part["row"], low, high, color=CUTS, lw=6, zorder=2)


def _by_difference(table: pl.DataFrame) -> pl.DataFrame:
    return table.sort(["delta", "lemma"], descending=[True, False], nulls_last=True)


def _draw(
    axis: Axes,
    part: pl.DataFrame,
    name: str,
    color: str,
    *,
    marker: str = "o",
    size: float = 5.0,
    shift: float = 0.0,
    filled: pl.Series | bool = True,
) -> None:
    values = interval_columns(part, name)
    intervals(
        axis, part["row"] + shift, *values, color=color, marker=marker, size=size, filled=filled
    )


def _detail(row: dict) -> str:
    if row["kind"] == "control":
        return f"{row['n_occurrences1']}"
    second = (row["sense2"] or "").replace("|", " / ")
    return f"{row['sense1']} {row['n_occurrences1']} · {second} {row['n_occurrences2']}"
