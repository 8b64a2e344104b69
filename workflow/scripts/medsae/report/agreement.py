"""Do the entity labels and the cues in the text agree on the sense, and are they right?"""

from math import isnan

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medsae.report.marks import annotate, follow, intervals, key, limits, row_labels, stripes
from medsae.report.style import CONTROL, CROSS, WITHIN, headline, page, sentence_figure
from medsae.report.tables import interval_columns, number


def draw_agreement(table: pl.DataFrame) -> Figure:
    """One row per term, from ``sense_agreement.csv``: κ and, with gold senses, accuracy."""
    title = "Two labellers of senses"
    if table.is_empty():
        return sentence_figure(title, "No ambiguous term occurs in the notes.")
    shown = table.sort(["kappa", "lemma"], descending=[True, False], nulls_last=True)
    rows = list(range(shown.height))
    has_gold = bool(shown["accuracy"].is_not_null().any())
    ratios = (1, 1.3) if has_gold else (1,)
    figure, axes = page(len(rows) * 0.25, ratios=ratios, left_in=1.6, right_in=1.1)
    median = number(shown["kappa"].median())
    headline(
        figure,
        f"{title}: " + ("agreement not estimable" if isnan(median) else f"median κ {median:.2f}"),
        "Entity labels and cues in the text, each alone and both together. Bars: 95% intervals.",
    )
    intervals(axes[0], rows, *interval_columns(shown, "kappa"), color=WITHIN)
    axes[0].set_xlabel("agreement (Cohen's κ)")
    if has_gold:
        _draw_accuracy(axes[1], rows, shown)
        follow(axes[1])
    for axis in axes:
        stripes(axis, rows)
        axis.set_xlim(min(0.0, axis.get_xlim()[0]), 1.02)
    row_labels(axes[0], rows, shown["lemma"].to_list())
    for row, resolved, n in (
        shown.select("n_resolved", "n_occurrences").with_row_index().iter_rows()
    ):
        annotate(axes[-1], 1.03, row, f"{resolved:,} of {n:,}")
    axes[-1].text(1.03, 1.01, "resolved", transform=axes[-1].transAxes, fontsize=7.5, va="bottom")
    limits(axes[0], len(rows))
    return figure


def _draw_accuracy(axis: Axes, rows: list[int], shown: pl.DataFrame) -> None:
    axis.plot(shown["ner_accuracy"], rows, "s", color=CONTROL, ms=4)
    axis.plot(shown["cue_accuracy"], rows, "D", color=CROSS, ms=4)
    intervals(axis, rows, *interval_columns(shown, "accuracy"), color=WITHIN)
    key(axis, [("o", WITHIN, "both"), ("s", CONTROL, "entity labels"), ("D", CROSS, "cues")])
    axis.set_xlabel("share right, against gold senses")
