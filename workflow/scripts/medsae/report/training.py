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
    ("l0", "active latents"),
    ("dead_fraction", "share of latents dead"),
    ("tokens_per_s", "{rows} per second"),
)


def draw_training(
    metrics: pl.DataFrame, where: str, rows: str = "tokens", groups: str = "notes"
) -> Figure:
    """Four panels over the rows seen, from ``train_metrics.parquet``.

    ``rows`` and ``groups`` say what is trained on, and what is held out as a whole.
    """
    figure, axes = page(
        2.1, ratios=(1, 1, 1, 1), left_in=0.5, right_in=0.2, gap_in=0.5, share_y=False
    )
    validation = metrics.filter(pl.col("val_fvu").is_not_null())
    best = number(validation["val_fvu"].min())
    size, unit = _unit(number(metrics["n_tokens"].max()), rows)
    headline(
        figure,
        f"Training of {where}"
        + ("" if isnan(best) else f": {best:.1%} of the variance unexplained"),
        f"On {groups} of held-out patients (orange) and on the training batches (blue).",
    )
    for axis, (name, label) in zip(axes, PANELS, strict=True):
        axis.plot(metrics["n_tokens"] / size, metrics[name], color=WITHIN, lw=1.3)
        axis.set_title(label.format(rows=rows))
        axis.set_xlabel(unit)
        axis.set_ylim(bottom=0)
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes[0].plot(
        validation["n_tokens"] / size, validation["val_fvu"], "-o", color=CROSS, ms=3.5, lw=1.3
    )
    _above_start(axes[0], metrics.select("fvu", "val_fvu"))
    return figure


def _above_start(axis: Axes, fvu: pl.DataFrame) -> None:
    """Leave the first steps, often far off, outside the panel."""
    settled = fvu.slice(fvu.height // 20).max_horizontal()
    axis.set_ylim(0, 1.2 * number(settled.max()))


def _unit(largest: float, rows: str) -> tuple[float, str]:
    for size, name in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if largest >= 2 * size:
            return size, f"{name} {rows}"
    return 1.0, rows
