"""How well entities are found: precision, recall and F1 of each label against gold."""

import polars as pl
from matplotlib.figure import Figure

from medsae.report.marks import annotate, follow, intervals, key, limits, row_labels, stripes
from medsae.report.style import CONTROL, CROSS, FLOOR, INK, WITHIN, headline, page, sentence_figure
from medsae.report.tables import interval_columns

ALL = "all labels"


def draw_ner(scores: pl.DataFrame, ner_name: str) -> Figure:
    """One row per label with gold spans, from ``ner_evaluation.csv``, all labels first."""
    title = f"Entities found by {ner_name}"
    exact = (
        scores.filter((pl.col("matching") == "exact") & (pl.col("n_gold") > 0))
        .with_columns(pl.col("f1").fill_nan(None))
        .sort(pl.col("label") != ALL, -pl.col("f1"), "label", nulls_last=True)
    )
    if exact.is_empty():
        return sentence_figure(title, "The gold spans hold none of the labels asked for.")
    loose = exact.select("label").join(
        scores.filter(pl.col("matching") == "overlap"),
        on="label",
        how="left",
        maintain_order="left",
    )
    (overall,) = exact.filter(pl.col("label") == ALL).to_dicts()
    rows = [0, *(row + 0.5 for row in range(1, exact.height))]
    figure, (f1, parts) = page(rows[-1] * 0.25 + 0.25, ratios=(1, 1), left_in=3.2, right_in=0.7)
    headline(
        figure,
        f"{title}: F1 {overall['f1']:.2f} [{overall['f1_low']:.2f}, {overall['f1_high']:.2f}]",
        "Against gold spans, label and both ends right, or label right and some overlap. Bars: "
        "95% intervals over notes.",
    )
    below = [row + 0.16 for row in rows]
    intervals(f1, below, *interval_columns(loose, "f1"), color=FLOOR, marker="s", size=4)
    intervals(f1, rows, *interval_columns(exact, "f1"), color=WITHIN)
    key(f1, [("o", WITHIN, "both ends right"), ("s", FLOOR, "some overlap")])
    for name, color, marker in (("precision", CONTROL, "s"), ("recall", CROSS, "D")):
        parts.plot(exact[name].cast(pl.Float64), rows, marker, color=color, ms=4.5, ls="none")
    key(parts, [("s", CONTROL, "precision"), ("D", CROSS, "recall")])
    for row, n in zip(rows, exact["n_gold"], strict=True):
        annotate(parts, 1.03, row, f"{n:,}")
    parts.text(1.03, 1.01, "gold", transform=parts.transAxes, fontsize=7.5, color=INK)
    row_labels(f1, rows, exact["label"].to_list())
    follow(parts)
    for axis in (f1, parts):
        stripes(axis, rows)
        axis.set_xlim(-0.02, 1.02)
    limits(f1, rows[-1] + 1)
    f1.set_xlabel("F1")
    parts.set_xlabel("precision, recall (both ends right)")
    return figure
