"""Separation of each term's senses under each way of pooling its tokens."""

import polars as pl
from matplotlib.figure import Figure

from medsae.report.marks import annotate, intervals, key, limits, reference, row_labels, stripes
from medsae.report.phrases import estimated
from medsae.report.style import MARKERS, SENSES, headline, page, sentence_figure

NAMES = {"last": "last token", "mean": "mean of the tokens", "max": "largest of the tokens"}
SHIFT = 0.2  # rows between two poolings


def draw_pooling(table: pl.DataFrame, where: str) -> Figure:
    """One row per term with its Δ under each pooling, from ``pooling_sensitivity.csv``.

    Terms of many tokens come first: a term of one token has the same code under all.
    """
    title = "Pooling the tokens of a term"
    shown = table.filter(pl.col("delta").is_not_null())
    if shown.is_empty():
        return sentence_figure(title, f"{where}: no term occurs often enough in two senses.")
    terms = shown.group_by("lemma").agg(pl.col("tokens_per_occurrence").first())
    terms = terms.sort(["tokens_per_occurrence", "lemma"], descending=[True, False])
    rows = list(range(terms.height))
    figure, (axis,) = page(terms.height * 0.36, left_in=3.0, right_in=1.1)
    largest = shown.sort(
        pl.col("change").abs(), "lemma", "pooling", descending=[True, False, False]
    )
    row = largest.row(0, named=True)
    change = {"value": row["change"], "low": row["change_low"], "high": row["change_high"]}
    finding, where_most = "moves no Δ", ""
    if row["change"]:
        finding = f"moves Δ by at most {estimated(change, signed=True)}"
        where_most = f" Most: {row['lemma']}, {row['pooling']}."
    headline(
        figure,
        f"How its tokens are pooled {finding}",
        f"{where}. Δ of the {row['k']} strongest latents, same sense minus other sense, with 95% "
        f"intervals over patients.{where_most}",
    )
    poolings = [name for name in NAMES if name in set(shown["pooling"])]
    for index, pooling in enumerate(poolings):
        part = terms.join(shown.filter(pl.col("pooling") == pooling), on="lemma", how="left")
        part = part.sort(["tokens_per_occurrence", "lemma"], descending=[True, False])
        places = [place + (index - 1) * SHIFT for place in rows]
        columns = part.select("delta", "delta_low", "delta_high").cast(pl.Float64).to_numpy().T
        intervals(axis, places, *columns, color=SENSES[index], marker=MARKERS[index], size=4)
    key(axis, [(MARKERS[i], SENSES[i], NAMES[name]) for i, name in enumerate(poolings)])
    row_labels(
        axis,
        rows,
        terms["lemma"].to_list(),
        [f"{n:.1f} tokens" for n in terms["tokens_per_occurrence"]],
    )
    for place, lemma in zip(rows, terms["lemma"], strict=True):
        spread = shown.filter(pl.col("lemma") == lemma)["delta"]
        annotate(axis, 1.02, place, f"{spread.max() - spread.min():.3f}")  # type: ignore[operator]
    axis.text(1.02, 1.02, "spread", transform=axis.transAxes, fontsize=7.5, va="bottom")
    stripes(axis, rows)
    reference(axis, 0.0)
    limits(axis, len(rows))
    axis.set_xlabel("Δ overlap")
    return figure
