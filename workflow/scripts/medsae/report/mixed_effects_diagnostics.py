"""Do the mixed-effects models fit? Residuals and random effects of each, as small multiples."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medsae.mixed_effects.diagnostics import RESIDUAL
from medsae.report.mixed_effects import KEY, fit_title
from medsae.report.style import (
    CROSS,
    LABEL_LEFT_IN,
    MARKERS,
    MUTED,
    RULE,
    SENSES,
    WIDTH_IN,
    WITHIN,
    grid,
    headline,
    sentence_figure,
)

MISSING_IN = 0.2
"""Room of a line about a model that could not be estimated."""

N_BINS = 12
"""Groups of equally many fitted values whose residuals' quartiles are drawn."""


def draw_diagnostics(diagnostics: pl.DataFrame, fits: pl.DataFrame) -> Figure:
    """A row of panels per fit, from ``diagnostics.csv`` and ``fits.csv``.

    Left: quantiles of the residuals against the normal ones. Middle: residuals against fitted
    values, with their quartiles. Right: quantiles of each random effect.
    """
    title = "Do the mixed-effects models fit?"
    drawn = [(fit, _rows_of(fit, diagnostics)) for fit in fits.iter_rows(named=True)]
    fitted = [(fit, rows) for fit, rows in drawn if rows.height]
    missing = [fit for fit, rows in drawn if not rows.height]
    if not fitted:
        reasons = "; ".join(_missing(fit) for fit in missing)
        return sentence_figure(title, reasons or "No model was fitted.")
    room = MISSING_IN * len(missing)
    figure, panels = grid(len(fitted), 3, 1.35, top_in=1.15, bottom_in=0.75 + room)
    headline(
        figure,
        f"{title} Residuals and random effects of {len(fitted)} of {fits.height} models",
        "On the dashed line: as the model has it. D: largest distance of the residuals' "
        "distribution from the normal one.",
    )
    for axes, (fit, rows) in zip(panels, fitted, strict=True):
        _draw_fit(axes, rows, fit)
    names = ("normal quantile", "fitted value", "normal quantile")
    for axis, name in zip(panels[-1], names, strict=True):
        axis.set_xlabel(name)
    height = figure.get_figheight()
    for index, fit in enumerate(missing):
        y = (room - index * MISSING_IN) / height
        figure.text(LABEL_LEFT_IN / WIDTH_IN, y, _missing(fit), fontsize=8, color=MUTED)
    return figure


def _rows_of(fit: dict, diagnostics: pl.DataFrame) -> pl.DataFrame:
    return diagnostics.filter(pl.all_horizontal(pl.col(name) == fit[name] for name in KEY))


def _missing(fit: dict) -> str:
    return f"{fit_title(fit)}: not estimable: {fit.get('reason') or fit['status']}"


def _draw_fit(axes: list[Axes], rows: pl.DataFrame, fit: dict) -> None:
    distance = fit.get("residual_distance")
    remark = "" if distance is None else f"   D = {distance:.2f}"
    axes[0].set_title(fit_title(fit) + remark, fontsize=8.5)
    residuals = rows.filter(pl.col("group") == RESIDUAL)
    _quantiles(axes[0], residuals, WITHIN, ".")
    axes[0].set_ylabel("residual")
    _by_fitted(axes[1], residuals)
    axes[1].set_ylabel("residual")
    effects = rows.filter(pl.col("group") != RESIDUAL)
    groups = effects.group_by("group", maintain_order=True)
    for index, ((name,), part) in enumerate(groups):
        look = index % len(MARKERS)
        _quantiles(axes[2], part, SENSES[look], MARKERS[look], label=str(name), size=3)
    axes[2].set_ylabel("random effect")
    if effects.height:
        axes[2].legend(fontsize=6.5, loc="upper left", handletextpad=0.1, borderpad=0)
    else:
        text = "no random effect: every term once"
        axes[2].text(0.5, 0.5, text, transform=axes[2].transAxes, color=MUTED, ha="center")


def _quantiles(
    axis: Axes, part: pl.DataFrame, color: str, marker: str, *, label: str = "", size: float = 4
) -> None:
    axis.axline((0, 0), slope=1, color=MUTED, lw=0.9, ls=(0, (4, 3)), zorder=1)
    axis.plot(
        part["quantile"], part["value"], marker, color=color, ms=size, mew=0, alpha=0.6, label=label
    )


def _by_fitted(axis: Axes, residuals: pl.DataFrame) -> None:
    axis.plot(residuals["fitted"], residuals["value"], ".", color=RULE, ms=3, mew=0)
    axis.axhline(0, color=MUTED, lw=0.9, ls=(0, (4, 3)))
    ordered = residuals.sort("fitted")
    n_bins = min(N_BINS, max(1, ordered.height // 10))
    bins = np.array_split(np.arange(ordered.height), n_bins)
    fitted, values = ordered["fitted"].to_numpy(), ordered["value"].to_numpy()
    centres = [np.median(fitted[rows]) for rows in bins]
    for level, width in ((0.25, 1.0), (0.5, 1.8), (0.75, 1.0)):
        heights = [np.quantile(values[rows], level) for rows in bins]
        axis.plot(centres, heights, color=CROSS, lw=width)
