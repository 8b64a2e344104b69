"""What of each term's Δ random weights explain, and what training adds."""

import polars as pl
from matplotlib.figure import Figure

from medsae.report.marks import follow, intervals, key, limits, reference, row_labels, stripes
from medsae.report.style import CONTROL, WITHIN, headline, page, sentence_figure
from medsae.report.tables import interval_columns

SHIFT = 0.14  # rows


def draw_training_gain(table: pl.DataFrame, where: str) -> Figure:
    """Δ of each term with and without training, and the difference, from ``training_gain.csv``.

    Terms by falling gain; ``where`` names the model, layer and SAE.
    """
    shown = table.filter(pl.col("gain").is_not_null())
    if shown.is_empty():
        return sentence_figure(where, "No ambiguous term occurs often enough in two senses.")
    shown = shown.sort(["gain", "lemma"], descending=[True, False]).with_columns(
        above=(pl.col("gain_low").cast(pl.Float64) > 0).fill_null(False)
    )
    rows = [float(row) for row in range(shown.height)]
    figure, (both, gain) = page(len(rows) * 0.3, ratios=(1.25, 1), left_in=2.4, right_in=0.4)
    headline(
        figure,
        f"{shown['above'].sum()} of {len(rows)} ambiguous terms: Δ is larger than with random "
        "weights",
        f"{where}. Δ of the {shown['k'][0]} strongest latents, over the same occurrences. Bars: "
        "95% intervals.",
    )
    for name, color, marker, shift in (
        ("delta", WITHIN, "o", -SHIFT),
        ("delta_untrained", CONTROL, "D", SHIFT),
    ):
        places = [row + shift for row in rows]
        intervals(both, places, *interval_columns(shown, name), color=color, marker=marker, size=4)
    intervals(gain, rows, *interval_columns(shown, "gain"), color=WITHIN, filled=shown["above"])
    key(both, [("o", WITHIN, "trained"), ("D", CONTROL, "random weights")])
    row_labels(both, rows, shown["lemma"].to_list(), [f"{n:,}" for n in shown["n_occurrences"]])
    follow(gain)
    for axis in (both, gain):
        stripes(axis, rows)
        reference(axis, 0.0)
    limits(both, len(rows))
    both.set_xlabel("Δ overlap")
    gain.set_xlabel(f"gain over {shown['untrained_model'][0]}")
    return figure
