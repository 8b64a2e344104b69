"""What happens to the model's predictions when a sense-linked latent is removed."""

import polars as pl
from matplotlib.figure import Figure

from medsae.report.marks import (
    annotate,
    follow,
    intervals,
    key,
    limits,
    reference,
    sense_labels,
    sense_rows,
    stripes,
)
from medsae.report.style import CONTROL, CROSS, INK, WITHIN, headline, page, sentence_figure
from medsae.report.tables import interval_columns, significant

CONDITIONS = (
    ("linked_on", WITHIN, "o", "own sense"),
    ("random_on", CONTROL, "s", "random latent"),
    ("linked_off", CROSS, "D", "other sense"),
)
CONTRASTS = (
    ("contrast", "qvalue_contrast", "o", WITHIN, "linked − random"),
    ("did", "qvalue", "s", INK, "own − other sense"),
)
SHORT = "not compared"


def draw_ablation(summary: pl.DataFrame, where: str) -> Figure:
    """One row per sense, from ``ablation_summary.csv``: ΔCE and difference in differences."""
    title = "Removing a sense-linked latent"
    if summary["contrast"].is_null().all():
        return sentence_figure(title, f"{where}: no confirmed sense-linked latent to remove.")
    shown = summary.filter(pl.col("sense").is_not_null()).sort("lemma", "sense")
    rows = sense_rows(shown)
    figure, (ce, did) = page(
        (rows[-1] + 1) * 0.23, ratios=(1.4, 1), left_in=2.7, right_in=1.3, top_in=1.05
    )
    tested = shown["contrast"].is_not_null().sum()
    hits = shown.filter(significant("contrast", "qvalue_contrast")).height
    headline(
        figure,
        f"{title}: for {hits} of {tested} senses more is lost than with a random one",
        f"{where}. Rise of the cross-entropy of the tokens after the term. Bars: 95% intervals "
        "over patients. Filled: q < 0.05.",
    )
    for index, (name, color, marker, _) in enumerate(CONDITIONS):
        shifted = [row + 0.2 * (index - 1) for row in rows]
        intervals(ce, shifted, *interval_columns(shown, name), color=color, marker=marker, size=4)
    for shift, (name, q, marker, color, _) in zip((-0.13, 0.13), CONTRASTS, strict=True):
        filled = shown.select(significant(name, q)).to_series()
        shifted = [row + shift for row in rows]
        values = interval_columns(shown, name)
        intervals(did, shifted, *values, color=color, marker=marker, filled=filled, size=4)
    key(did, [(marker, color, text) for *_, marker, color, text in CONTRASTS])
    key(ce, [(marker, color, text) for _, color, marker, text in CONDITIONS])
    for row, reason, estimated in zip(
        rows, shown["reason"], shown["linked_on"].is_not_null(), strict=True
    ):
        if reason:
            # The reason is in the table; beside the estimates there is room for three words.
            annotate(*((did, 1.02, row, SHORT) if estimated else (ce, 0.01, row, reason)))
    sense_labels(ce, rows, shown, "n_occurrences")
    follow(did)
    for axis in (ce, did):
        stripes(axis, rows)
        reference(axis, 0.0)
    limits(ce, rows[-1] + 1)
    ce.set_xlabel("ΔCE (nats per token)")
    did.set_xlabel("difference (nats per token)")
    return figure
