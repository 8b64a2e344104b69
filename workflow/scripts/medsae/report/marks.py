"""What the figures are drawn with: intervals in rows, row labels, reference lines."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike

from medsae.report.style import INK, LABEL_LEFT_IN, MUTED, RULE, WIDTH_IN

LEMMA_GAP = 0.3  # rows
CONTROL_STEP = 0.68
"""Rows of controls stand closer than those of ambiguous terms, of which there are fewer."""


def intervals(
    axis: Axes,
    rows: ArrayLike,
    values: ArrayLike,
    lows: ArrayLike,
    highs: ArrayLike,
    *,
    color: str,
    marker: str = "o",
    filled: ArrayLike | bool = True,
    size: float = 5.0,
) -> None:
    """Draw a point with its interval in each row; rows without a value are left empty.

    ``rows`` [n] are vertical positions, ``values``, ``lows``, ``highs`` [n] horizontal ones
    (NaN where not estimated). ``filled`` [n] or one bool: solid or open markers.
    """
    y = np.asarray(rows, float)
    axis.hlines(y, np.asarray(lows, float), np.asarray(highs, float), color=color, lw=1.4, zorder=3)
    points(axis, rows, values, color=color, marker=marker, filled=filled, size=size)


def points(
    axis: Axes,
    rows: ArrayLike,
    values: ArrayLike,
    *,
    color: str,
    marker: str = "o",
    filled: ArrayLike | bool = True,
    size: float = 5.0,
) -> None:
    """Draw a point in each row, as `intervals` does."""
    y = np.asarray(rows, float)
    x = np.asarray(values, float)
    solid = np.broadcast_to(np.asarray(filled, bool), x.shape)
    for chosen, face in ((solid, color), (~solid, "white")):
        axis.plot(
            x[chosen],
            y[chosen],
            marker,
            ms=size,
            mfc=face,
            mec=color,
            mew=1.3,
            ls="none",
            zorder=4,
        )


def row_labels(
    axis: Axes,
    rows: Sequence[float],
    labels: Sequence[str],
    details: Sequence[str] | None = None,
    sizes: Sequence[float] | None = None,
) -> None:
    """Name the rows at the left of ``axis``.

    With ``details`` the labels stand at the page's left edge, in letters of ``sizes``, and
    the details, smaller and muted, beside the axis.
    """
    axis.tick_params(axis="y", length=0, pad=6)
    axis.spines["left"].set_visible(False)
    if details is None:
        axis.set_yticks(list(rows), list(labels))
        return
    sizes = sizes or [8.5] * len(labels)
    ticks = axis.set_yticks(list(rows), list(details), color=MUTED)
    for tick, size in zip(ticks, sizes, strict=True):
        tick.label1.set_fontsize(size - 1)
    box = axis.get_position()
    edge = (LABEL_LEFT_IN / WIDTH_IN - box.x0) / box.width
    for row, label, size in zip(rows, labels, sizes, strict=True):
        axis.text(
            edge, row, label, transform=axis.get_yaxis_transform(), va="center", fontsize=size
        )


def annotate(axis: Axes, x: float, row: float, text: str) -> None:
    """A muted remark in ``row``, ``x`` of the way across ``axis`` (above 1: beside it)."""
    axis.text(
        x,
        row,
        text,
        transform=axis.get_yaxis_transform(),
        fontsize=7.5,
        color=MUTED,
        va="center",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )


def limits(axis: Axes, n_rows: float, top: float = 0.0) -> None:
    """Rows 0 .. n_rows-1 from top to bottom; ``top`` more rows of room above the first."""
    axis.set_ylim(n_rows - 0.4, -0.6 - top)


def stripes(axis: Axes, rows: Sequence[float]) -> None:
    """Hairlines that lead the eye from a row's label to its marks."""
    for row in rows:
        axis.axhline(row, color=RULE, lw=0.5, zorder=0)


def reference(axis: Axes, x: float, label: str = "", row: float = 0.0) -> None:
    """A dashed vertical line at ``x``, named beside it in ``row``."""
    axis.axvline(x, color=MUTED, lw=0.9, ls=(0, (4, 3)), zorder=1)
    if label:
        axis.text(x, row, f" {label}", fontsize=7, color=MUTED, va="center")


def key(axis: Axes, entries: Sequence[tuple[str, str, str]], *, gap_in: float = 0.25) -> None:
    """A one-line key above ``axis``: (marker, colour, text) from left to right."""
    inches = axis.figure.dpi_scale_trans + ScaledTranslation(0, 1, axis.transAxes)  # type: ignore[arg-type]
    x, y = 0.05, 0.17
    for marker, color, text in entries:
        size = 8 if marker == "|" else 5
        axis.plot(x, y, marker, transform=inches, clip_on=False, color=color, mew=1.4, ms=size)
        axis.text(x + 0.1, y, text, transform=inches, va="center", fontsize=8, color=INK)
        x += 0.1 + 0.06 * len(text) + gap_in


def q_text(q: float | None) -> str:
    """A q or p value as a reader wants it: ``0.032``, ``<0.001``, empty if there is none."""
    if q is None or np.isnan(q):
        return ""
    if q < 0.001:
        return "<0.001"
    return f"{q:.3f}" if q < 0.1 else f"{q:.2f}"


def sense_rows(table: pl.DataFrame) -> list[float]:
    """Vertical positions of the rows of ``table``: a little room where ``lemma`` changes."""
    new_lemma = (table["lemma"] != table["lemma"].shift(1)).fill_null(False)
    return (np.arange(table.height) + LEMMA_GAP * new_lemma.cum_sum().to_numpy()).tolist()


def sense_labels(axis: Axes, rows: Sequence[float], table: pl.DataFrame, n: str) -> None:
    """Name rows by term (once) and by sense with the count in column ``n``."""
    lemmas = table["lemma"].to_list()
    labels = [
        lemma if index == 0 or lemma != lemmas[index - 1] else ""
        for index, lemma in enumerate(lemmas)
    ]
    details = [
        # A term too rare to be measured has no count.
        f"{sense or 'one meaning'}  {count:,}" if count is not None else sense or "too few"
        for sense, count in table.select("sense", n).iter_rows()
    ]
    row_labels(axis, rows, labels, details)


def follow(axis: Axes) -> None:
    """Make ``axis`` a panel that shares the rows named at its left neighbour."""
    axis.tick_params(axis="y", left=False, labelleft=False)
    axis.spines["left"].set_visible(False)
