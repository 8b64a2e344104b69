"""Slices themselves: what the best features pick, and what a fingerprint finds."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medsae.imaging.artifacts import SliceImages
from medsae.report.style import CROSS, MUTED, WIDTH_IN, WITHIN, headline, page, sentence_figure

N_FEATURES, N_SLICES = 8, 5
N_QUERIES = 5
SIDE_IN = 1.15
LABEL_IN = 2.6


def best_features(
    scores: pl.DataFrame, descriptions: pl.DataFrame, samples: pl.DataFrame
) -> pl.DataFrame:
    """The features of the contact sheet: the most monosemantic ones, their slices and names.

    After them those seen on too few scans for a score, in the order in which they were selected.

    Columns feature_idx, monosemanticity_10, description, concept, rank, slices (keys of the
    shown ones, strongest first). Of features with one description the best is taken.
    """
    # a CSV file without rows does not tell the types of its columns
    scores, descriptions, samples = (
        table.with_columns(pl.col("feature_idx").cast(pl.Int64))
        for table in (scores, descriptions, samples)
    )
    shown = (
        samples.filter(pl.col("role") == "shown")
        .group_by("feature_idx", maintain_order=True)
        .agg(pl.col("slice_key").head(N_SLICES).str.join(";").alias("slices"))
    )
    named = descriptions.select("feature_idx", "description", "rank").join(shown, on="feature_idx")
    table = named.join(
        scores.select("feature_idx", "monosemanticity_10", "concept"), on="feature_idx"
    )
    order = table.drop_nulls("description").sort(
        "monosemanticity_10", descending=True, nulls_last=True, maintain_order=True
    )
    return order.unique("description", keep="first", maintain_order=True).head(N_FEATURES)


def draw_contact_sheet(
    features: pl.DataFrame, images: SliceImages, slices: pl.DataFrame, where: str
) -> Figure:
    """One row per feature: its slices, the organ it is most associated with outlined."""
    title = "Best features and the slices that show them"
    if features.is_empty():
        return sentence_figure(title, f"{where}: no feature could be named.")
    row_of = {key: row for row, key in enumerate(slices["slice_key"])}
    figure = _sheet(features.height, title, f"{where}. Orange: the mask of the feature's organ.")
    for line, feature in enumerate(features.iter_rows(named=True)):
        organ = str(feature["concept"] or "")
        structure = organ.removeprefix("organ:") if organ.startswith("organ:") else None
        _label(figure, line, _feature_lines(feature))
        for column, key in enumerate(feature["slices"].split(";")):
            row = row_of[key]
            mask = images.mask(row, structure) if structure else None
            _show(figure, line, column, images.pixels(row), mask)
    return figure


def _feature_lines(feature: dict) -> list[str]:
    judged = "" if feature["rank"] is None else f" · judged rank {int(feature['rank'])} of 5"
    mono = feature["monosemanticity_10"]
    score = "too few scans for M" if mono is None else f"M {mono:.2f}"
    return [
        f"feature {feature['feature_idx']}",
        str(feature["description"]),
        f"{score}{judged}",
    ]


def fingerprint_examples(results: pl.DataFrame, slices: pl.DataFrame, k: int = 10) -> pl.DataFrame:
    """Queries that show structures, from best to worst agreement, and what was found."""
    showing = slices.filter(pl.col("organs").list.len() > 0).select("slice_key")
    own = results.filter((pl.col("method") == "fingerprint") & (pl.col("results") != ""))
    own = own.join(showing, on="slice_key", how="semi")
    if own.is_empty():
        return own
    nearest = min(own["k"].unique().to_list(), key=lambda value: (abs(value - k), value))
    judged = own.filter((pl.col("k") == nearest) & pl.col("ndcg_at_10_organs").is_not_null())
    ordered = judged.sort(["ndcg_at_10_organs", "slice_key"], descending=[True, False])
    places = np.unique(np.linspace(0, max(ordered.height - 1, 0), N_QUERIES).astype(int))
    return ordered[places[: ordered.height].tolist()] if ordered.height else ordered


def draw_fingerprint_examples(
    examples: pl.DataFrame, images: SliceImages, slices: pl.DataFrame, where: str
) -> Figure:
    """One row per query: the query, then the slices found, best to worst query."""
    title = "What a fingerprint finds"
    if examples.is_empty():
        return sentence_figure(title, f"{where}: no query could be judged.")
    row_of = {key: row for row, key in enumerate(slices["slice_key"])}
    organs = dict(slices.select("slice_key", "organs").iter_rows())
    detail = f"{where}. Left: query; then the best slice of each of the first scans."
    figure = _sheet(examples.height, title, detail)
    for line, example in enumerate(examples.iter_rows(named=True)):
        query = example["slice_key"]
        lines = [
            query,
            _some(organs[query]),
            f"k = {example['k']} · nDCG@10 {example['ndcg_at_10_organs']:.2f}",
        ]
        _label(figure, line, lines)
        for column, key in enumerate([query, *example["results"].split(";")][:N_SLICES]):
            pixels = images.pixels(row_of[key])
            _show(figure, line, column, pixels, None, framed=column == 0)
    return figure


def _some(organs: Sequence[str] | None) -> str:
    if organs is None:
        return "no masks"
    names = [name.replace("_", " ") for name in organs]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) or "no structure") + more


def _sheet(n_rows: int, title: str, detail: str) -> Figure:
    figure, (axis,) = page(n_rows * (SIDE_IN + 0.08), left_in=LABEL_IN, top_in=0.75, bottom_in=0.2)
    axis.remove()
    headline(figure, title, detail)
    return figure


def _place(figure: Figure, line: int, column: int) -> tuple[float, ...]:
    height = figure.get_figheight()
    x = LABEL_IN + column * (SIDE_IN + 0.08)
    y = height - 0.75 - (line + 1) * (SIDE_IN + 0.08)
    return x / WIDTH_IN, y / height, SIDE_IN / WIDTH_IN, SIDE_IN / height


def _label(figure: Figure, line: int, lines: Sequence[str]) -> None:
    _, y, _, side = _place(figure, line, 0)
    for number, (text, color) in enumerate(zip(lines, ("#222222", "#222222", MUTED), strict=True)):
        figure.text(
            0.15 / WIDTH_IN,
            y + side * (0.78 - 0.3 * number),
            _wrapped(text),
            fontsize=7.5,
            color=color,
            va="center",
        )


def _wrapped(text: str, width: int = 38) -> str:
    """At most two lines of ``width`` characters."""
    if len(text) <= width:
        return text
    cut = text.rfind(" ", 0, width)
    cut = width if cut < width // 2 else cut
    rest = text[cut:].strip()
    return text[:cut] + "\n" + (rest if len(rest) <= width else rest[: width - 1] + "…")


def _show(
    figure: Figure,
    line: int,
    column: int,
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_] | None,
    framed: bool = False,
) -> None:
    axis = figure.add_axes(_place(figure, line, column))  # type: ignore[arg-type]
    # the figure is small: more pixels would only make it heavy
    step = max(1, pixels.shape[0] // 192)
    axis.imshow(pixels[::step, ::step], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    if mask is not None and mask.any():
        axis.contour(mask[::step, ::step], levels=[0.5], colors=[CROSS], linewidths=0.9)
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_visible(framed)
        side.set_color(WITHIN)
        side.set_linewidth(1.6)
