"""How much of the model survives when its activations pass through the SAE."""

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medsae.report.marks import annotate, follow, intervals, key, limits, row_labels, stripes
from medsae.report.style import CONTROL, CROSS, WITHIN, headline, page, sentence_figure
from medsae.report.tables import interval_columns, place

CONDITIONS = (
    ("ce_clean", CONTROL, "|", "untouched"),
    ("ce_reconstructed", WITHIN, "o", "through the SAE"),
    ("ce_mean_ablated", CROSS, "D", "mean activation instead"),
)


def draw_faithfulness(table: pl.DataFrame) -> Figure:
    """One row per SAE, from the rows of every ``faithfulness.csv``."""
    title = "How faithful the autoencoders are"
    if table.is_empty():
        return sentence_figure(title, "No SAE was scored.")
    shown = table.sort("model", "layer", "sae")
    rows = list(range(shown.height))
    figure, (ce, recovered) = page(len(rows) * 0.32, ratios=(1.3, 1), left_in=3.0, right_in=0.9)
    headline(
        figure,
        title,
        "Cross-entropy of the next token with the layer's output untouched, reconstructed, and "
        "replaced by its mean; notes of held-out patients, 95% intervals.",
    )
    ce.hlines(rows, shown["ce_clean"], shown["ce_mean_ablated"], color="#DDDDDD", lw=2.5, zorder=1)
    for name, color, marker, _ in CONDITIONS:
        values, size = interval_columns(shown, name), 9.0 if marker == "|" else 5.0
        intervals(ce, rows, *values, color=color, marker=marker, size=size)
    key(ce, [(marker, color, text) for _, color, marker, text in CONDITIONS])
    values, shares = _loss_recovered(shown)
    intervals(recovered, rows, *values, color=WITHIN)
    for row, share in zip(rows, shares, strict=True):
        annotate(recovered, 1.03, row, share)
    beyond = np.nanmax(values[2], initial=1.0)  # a reconstruction can lose less than the original
    row_labels(ce, rows, [place(*row) for row in shown.select("model", "layer", "sae").iter_rows()])
    follow(recovered)
    for axis in (ce, recovered):
        stripes(axis, rows)
    recovered.set_xlim(-0.02, beyond + 0.02)
    limits(ce, len(rows))
    ce.set_xlabel("cross-entropy (nats per token)")
    recovered.set_xlabel("share of the loss recovered")
    return figure


def _loss_recovered(shown: pl.DataFrame) -> tuple[NDArray[np.float64], list[str]]:
    """Loss recovered with its interval [3, rows], and as text.

    An interval wider than everything says nothing and is NaN.
    """
    values = interval_columns(shown, "loss_recovered")
    value, low, high = values
    determined = high - low < 1
    text = [f"{x:.1%}" if ok else "undetermined" for x, ok in zip(value, determined, strict=True)]
    return np.where(determined, values, np.nan), text
