"""Can the sense be read off the latents? Probes on patients they never saw."""

import polars as pl
from matplotlib.figure import Figure

from medsae.report.marks import (
    annotate,
    follow,
    key,
    limits,
    points,
    reference,
    sense_labels,
    sense_rows,
    stripes,
)
from medsae.report.style import CONTROL, FLOOR, WITHIN, headline, page, sentence_figure
from medsae.report.tables import ALPHA, interval_columns, number


def draw_probes(table: pl.DataFrame, where: str) -> Figure:
    """One row per sense, from ``sense_probes.csv``: AUROC beside its null, AP and prevalence.

    The test is the term's: all of its senses are filled, or none.
    """
    title = "Reading the sense off the latents"
    terms = table.filter(pl.col("sense").is_null())
    estimated = terms.filter(pl.col("auroc").is_not_null())
    if estimated.is_empty():
        return sentence_figure(title, f"{where}: no sense has enough occurrences.")
    # of a term without any probe only its own row is there, with the reason
    several = pl.col("sense").is_not_null().any().over("lemma")
    shown = table.filter(pl.col("sense").is_not_null() | ~several).sort("lemma", "sense")
    rows = sense_rows(shown)
    found = estimated.filter(pl.col("qvalue") < ALPHA)["lemma"]
    clear = shown["lemma"].is_in(found.implode())
    figure, (auroc, ap) = page((rows[-1] + 1) * 0.2, ratios=(1.2, 1), left_in=2.7)
    headline(
        figure,
        f"{title}: median AUROC {number(estimated['auroc'].median()):.2f} "
        f"({len(found)} of {estimated.height} terms above chance)",
        f"{where}. Linear probes tested on patients they never saw. Filled: q < {ALPHA} (terms).",
    )
    _, null_low, null_high = interval_columns(shown, "auroc_null")
    auroc.hlines(rows, null_low, null_high, color=FLOOR, lw=5, zorder=1)
    points(auroc, rows, shown["auroc"], color=WITHIN, filled=clear)
    points(ap, rows, shown["ap"], color=WITHIN)
    ap.plot(shown["prevalence"], rows, "|", color=CONTROL, ms=8, mew=1.8)
    key(auroc, [("o", WITHIN, "probe"), ("s", FLOOR, "labels shuffled")])
    key(ap, [("o", WITHIN, "probe"), ("|", CONTROL, "prevalence (chance)")])
    for row, reason in zip(rows, shown["reason"], strict=True):
        if reason:
            annotate(auroc, 0.01, row, reason)
    sense_labels(auroc, rows, shown, "n_positive")
    follow(ap)
    reference(auroc, 0.5)
    for axis in (auroc, ap):
        stripes(axis, rows)
    auroc.set_xlim(min(0.3, auroc.get_xlim()[0]), 1.02)
    ap.set_xlim(-0.02, 1.02)
    limits(auroc, rows[-1] + 1)
    auroc.set_xlabel("AUROC")
    ap.set_xlabel("average precision")
    return figure
