"""How the SAE learned: error, sparsity, dead latents and speed over training tokens."""

import polars as pl
from math import isnan

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from medsae.report.style import CROSS, WITHIN, headline, page
from medsae.report.tables import number

PANELS = (
    ("fvu", "variance unexplained"),
    ("l0", "active latents per token"),
    ("dead_fraction", "share of latents dead"),
    ("tokens_per_s", "tokens per second"),
)


def draw_training(metrics: pl.DataFrame, where: str) -> Figure:
    """Four panels over the tokens seen, from ``train_metrics.parquet``."""
    figure, axes = page(
        2.1, ratios=(1, 1, 1, 1), left_in=0.5, right_in=0.2, gap_in=0.5, share_y=False
    )
    validation = metrics.filter(pl.col("val_fvu").is_not_null())
    best = number(validation["val_fvu"].min())
    tokens = _unit(number(metrics["n_tokens"].max()))
    headline(
        figure,
        f"Training of {where}"
        + ("" if isnan(best) else f": {best:.1%} of the variance unexplained"),
        "On notes of held-out patients (orange) and on the training batches (blue).",
    )
    for axis, (name, label) in zip(axes, PANELS, strict=True):
        axis.plot(metrics["n_tokens"] / tokens[0], metrics[name], color=WITHIN, lw=1.3)
        axis.set_title(label)
        axis.set_xlabel(tokens[1])
        axis.set_ylim(bottom=0)
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes[0].plot(
        validation["n_tokens"] / tokens[0], validation["val_fvu"], "-o", color=CROSS, ms=3.5, lw=1.3
    )
    _above_start(axes[0], metrics["fvu"])
    return figure


def _above_start(axis: Axes, fvu: pl.Series) -> None:
    """Leave the first steps, often far off, outside the panel."""
    settled = fvu.slice(len(fvu) // 20)
    axis.set_ylim(0, 1.2 * number(settled.max()))


def _unit(largest: float) -> tuple[float, str]:
    for size, name in ((1e9, "billion tokens"), (1e6, "million tokens"), (1e3, "thousand tokens")):
        if largest >= 2 * size:
            return size, name
    return 1.0, "tokens"
