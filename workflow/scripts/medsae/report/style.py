"""One look for every figure: colours, sizes, page geometry, and deterministic files.

Colours are from the Okabe-Ito palette, told apart by readers with any colour vision; a
difference that matters is never shown by colour alone. Lengths are in inches, so that a
figure grows with its rows and its letters never shrink.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator

from medsae.io import atomic_path

WITHIN = "#0072B2"  # same sense, on-sense, the quantity of interest
CROSS = "#D55E00"  # other sense, off-sense
CONTROL = "#6F6F6F"  # matched control, null, baseline
FLOOR = "#B5B5B5"
CUTS = "#D9D9D9"  # bands that random cuts of terms with one meaning fill
INK = "#222222"
MUTED = "#6B6B6B"
RULE = "#DDDDDD"
SENSES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MARKERS = ("o", "s", "D", "^", "v", "P")

WIDTH_IN = 9.2
LEFT_IN = 2.3
LABEL_LEFT_IN = 0.15
RIGHT_IN = 0.35
TOP_IN = 1.0
BOTTOM_IN = 0.62

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.labelsize": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "svg.fonttype": "path",
    "svg.hashsalt": "medsae",
}
style.use(RC)


def page(
    body_in: float,
    *,
    ratios: Sequence[float] = (1.0,),
    left_in: float = LEFT_IN,
    right_in: float = RIGHT_IN,
    top_in: float = TOP_IN,
    bottom_in: float = BOTTOM_IN,
    gap_in: float = 0.35,
    share_y: bool = True,
) -> tuple[Figure, list[Axes]]:
    """A figure whose panels stand side by side in a body ``body_in`` inches high.

    ``ratios`` are the relative widths of the panels. Returns the figure and its axes, left
    to right.
    """
    height = top_in + body_in + bottom_in
    figure = Figure(figsize=(WIDTH_IN, height), facecolor="white")
    FigureCanvasSVG(figure)
    usable = WIDTH_IN - left_in - right_in - gap_in * (len(ratios) - 1)
    axes: list[Axes] = []
    start = left_in
    for ratio in ratios:
        width = usable * ratio / sum(ratios)
        box = (start / WIDTH_IN, bottom_in / height, width / WIDTH_IN, body_in / height)
        axes.append(figure.add_axes(box, sharey=axes[0] if axes and share_y else None))
        axes[-1].xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        start += width + gap_in
    return figure, axes


def column(
    bodies_in: Sequence[float],
    *,
    left_in: float = LEFT_IN,
    right_in: float = RIGHT_IN,
    top_in: float = TOP_IN,
    bottom_in: float = BOTTOM_IN,
    gap_in: float = 0.75,
) -> tuple[Figure, list[Axes]]:
    """A figure whose panels, ``bodies_in`` inches high, stand one below the other."""
    height = top_in + sum(bodies_in) + gap_in * (len(bodies_in) - 1) + bottom_in
    figure = Figure(figsize=(WIDTH_IN, height), facecolor="white")
    FigureCanvasSVG(figure)
    width = (WIDTH_IN - left_in - right_in) / WIDTH_IN
    axes = []
    top = top_in
    for body in bodies_in:
        box = (left_in / WIDTH_IN, 1 - (top + body) / height, width, body / height)
        axes.append(figure.add_axes(box))
        top += body + gap_in
    return figure, axes


def grid(
    n_rows: int,
    n_columns: int,
    panel_in: float,
    *,
    left_in: float = 0.75,
    right_in: float = RIGHT_IN,
    top_in: float = TOP_IN,
    bottom_in: float = BOTTOM_IN,
    gap_in: tuple[float, float] = (0.7, 0.75),
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of small multiples, each ``panel_in`` inches high: axes by row, then column.

    ``gap_in``: between rows, between columns.
    """
    between_rows, between_columns = gap_in
    height = top_in + n_rows * panel_in + (n_rows - 1) * between_rows + bottom_in
    figure = Figure(figsize=(WIDTH_IN, height), facecolor="white")
    FigureCanvasSVG(figure)
    width = (WIDTH_IN - left_in - right_in - (n_columns - 1) * between_columns) / n_columns
    axes = []
    for row in range(n_rows):
        bottom = height - top_in - (row + 1) * panel_in - row * between_rows
        lefts = [left_in + index * (width + between_columns) for index in range(n_columns)]
        size = (width / WIDTH_IN, panel_in / height)
        axes.append([figure.add_axes((x / WIDTH_IN, bottom / height, *size)) for x in lefts])
    return figure, axes


def text_width_in(text: str, size: float) -> float:
    """Width in inches of the longest line of ``text`` in letters of ``size`` points."""
    font = FontProperties(family=RC["font.family"])
    lines = [line for line in text.split("\n") if line.strip()]
    return (
        max((TextPath((0, 0), x, size, prop=font).get_extents().x1 for x in lines), default=0) / 72
    )


def headline(figure: Figure, title: str, detail: str = "") -> None:
    """Write what the figure shows at its top left, and in one smaller line how to read it."""
    height = figure.get_figheight()
    x = LABEL_LEFT_IN / WIDTH_IN
    figure.text(x, 1 - 0.3 / height, title, fontsize=11.5, fontweight="bold", va="baseline")
    if detail:
        figure.text(x, 1 - 0.52 / height, detail, fontsize=8.5, color=MUTED, va="baseline")


def sentence_figure(title: str, sentence: str) -> Figure:
    """A figure that says in words why there is nothing to draw."""
    figure, (axis,) = page(0.3, left_in=LABEL_LEFT_IN, top_in=0.6, bottom_in=0.2)
    axis.set_axis_off()
    headline(figure, title)
    axis.text(0, 0.6, sentence, fontsize=10, color=MUTED, wrap=True, va="center")
    return figure


def save(figure: Figure, path: str | Path) -> None:
    """Write ``figure`` to ``path`` (SVG), the same bytes every time."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
