"""Retrieval by fingerprint and by words, against their baselines."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medsae.report.imaging.data import counts_axis
from medsae.report.marks import intervals, key, limits, reference, row_labels, stripes
from medsae.report.style import CONTROL, CROSS, MUTED, WITHIN, headline, page, sentence_figure

PANELS = {
    "quality": "dense cosine of five results",
    "p_at_5_organs": "P@5, organs alike",
    "p_at_5_plane": "P@5, plane",
    "ndcg_at_10_organs": "nDCG@10, organs",
}
BASELINES = {"dense": "-", "all features": (0, (5, 2)), "random": (0, (1, 2))}
METHODS = {"picked": WITHIN, "random features": CONTROL}


def draw_fingerprint(summary: pl.DataFrame, where: str) -> Figure:
    """Each measure against the size of the fingerprint, from ``fingerprint_summary.csv``."""
    title = "Slices found by their strongest features"
    if summary.is_empty():
        return sentence_figure(title, f"{where}: no query could be judged.")
    figure, axes = page(2.2, ratios=(1,) * len(PANELS), left_in=0.6, share_y=False, gap_in=0.45)
    headline(figure, title, f"{where}. The query's patient is excluded; one slice per scan.")
    for axis, (measure, label) in zip(axes, PANELS.items(), strict=True):
        table = summary.filter(pl.col("measure") == measure)
        _curve(axis, table.filter(pl.col("method") == "fingerprint").sort("k"))
        for method, style in BASELINES.items():
            for value in table.filter(pl.col("method") == method)["mean"]:
                axis.axhline(value, color=MUTED, lw=1, ls=style)
        counts_axis(axis, (1, 3, 10, 30, 100))
        axis.set_title(label)
        axis.set_xlabel("features in the fingerprint")
    lines = [
        axes[0].plot([], [], color=MUTED, ls=style, label=name)[0]
        for name, style in BASELINES.items()
    ]
    axes[0].legend(handles=lines, loc="lower right", fontsize=7)
    return figure


def _curve(axis: Axes, curve: pl.DataFrame) -> None:
    axis.plot(curve["k"], curve["mean"], "o-", color=WITHIN, ms=4)
    band = curve.drop_nulls("mean_low")
    if band.height:
        axis.fill_between(
            band["k"], band["mean_low"], band["mean_high"], color=WITHIN, alpha=0.15, lw=0
        )


def draw_language(summary: pl.DataFrame, where: str) -> Figure:
    """P@10 of each attribute against its prevalence, from ``language_retrieval_summary.csv``."""
    title = "Slices found by words"
    if summary.is_empty():
        return sentence_figure(title, f"{where}: there was no query.")
    attributes = summary["attribute"].unique(maintain_order=True).to_list()
    figure, (axis,) = page(len(attributes) * 0.4, left_in=2.0, right_in=0.4)
    n = summary.filter(pl.col("attribute") == "all")["n_queries"][0]
    headline(
        figure, title, f"{where}. {n} templated queries; bars: 95% intervals over queries only."
    )
    details = []
    for row, attribute in enumerate(attributes):
        part = summary.filter(pl.col("attribute") == attribute)
        details.append(f"{part['n_queries'][0]} queries")
        for place, (method, color) in enumerate(METHODS.items()):
            own = part.filter(pl.col("method") == method)
            columns = [own[f"p_at_10{end}"].cast(pl.Float64) for end in ("", "_low", "_high")]
            y = [row + 0.18 * (2 * place - 1)] * own.height
            filled = [column.fill_null(float("nan")).to_numpy() for column in columns]
            intervals(axis, y, *filled, color=color, marker="os"[place])
        axis.plot(part["prevalence"][0], row, "|", color=CROSS, ms=14, mew=2)
    key(
        axis,
        [("o", WITHIN, "described features picked"), ("s", CONTROL, "random described features"),
         ("|", CROSS, "prevalence")],
    )  # fmt: skip
    places = list(map(float, range(len(attributes))))
    row_labels(axis, places, attributes, details)
    stripes(axis, places)
    reference(axis, 0)
    limits(axis, len(attributes))
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel("P@10")
    return figure
