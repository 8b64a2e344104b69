"""Where senses separate: the same comparison across models, layers and SAEs."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medsae.polysemy.columns import SOURCE
from medsae.report.marks import annotate, intervals, key, limits, reference, row_labels, stripes
from medsae.report.means import mean_over_terms
from medsae.report.style import (
    CONTROL,
    CUTS,
    MARKERS,
    SENSES,
    WITHIN,
    column,
    headline,
    sentence_figure,
)
from medsae.report.tables import at_headline_k, beyond_chance, significant

PROFILE_IN = 2.0
SCHEMA = {
    "model": pl.String,
    "layer": pl.Int64,
    "sae": pl.String,
    "k": pl.Int64,
    "n_terms": pl.Int64,
    "n_controls": pl.Int64,
    "n_separated": pl.Int64,
    "delta": pl.Float64,
    "delta_low": pl.Float64,
    "delta_high": pl.Float64,
    "n_beyond_chance": pl.Int64,
    "chance_delta_low": pl.Float64,
    "chance_delta_high": pl.Float64,
    "chance_delta_95": pl.Float64,
}


def compare_places(jaccard: pl.DataFrame) -> pl.DataFrame:
    """One row per model, layer and SAE, from the rows of every ``jaccard_at_k.csv``.

    Columns: model, layer, sae, k (latents compared), n_terms, n_controls, n_separated, delta
    (mean over terms, with a 95% Student interval over terms), n_beyond_chance (of the separated
    terms, those whose Δ is larger than 95% of random cuts of terms with one meaning; null where
    there is no cut to compare any of them with) and
    chance_delta (median over terms of where 95% of these cuts lie).
    """
    rows = []
    for place, rows_of_place in jaccard.group_by(SOURCE, maintain_order=True):
        part, k = at_headline_k(rows_of_place)
        terms = part.filter((pl.col("kind") == "polysemous") & pl.col("delta").is_not_null())
        controls = part.filter((pl.col("kind") == "control") & pl.col("within").is_not_null())
        found = terms.filter(significant("delta"))
        compared = found.is_empty() or found["chance_delta_95"].is_not_null().any()
        cuts = [f"chance_delta_{end}" for end in ("low", "high", "95")]
        rows.append(
            dict(zip(SOURCE, place, strict=True))
            | {"k": k}
            | {"n_terms": terms.height, "n_controls": controls.height}
            | {"n_separated": found.height}
            | {"n_beyond_chance": found.filter(beyond_chance()).height if compared else None}
            | mean_over_terms("delta", terms["delta"])
            | {name: terms[name].cast(pl.Float64).median() for name in cuts}
        )
    return pl.DataFrame(rows, schema=SCHEMA).sort(SOURCE)


def draw_layers(jaccard: pl.DataFrame, places: pl.DataFrame, random_models: set[str]) -> Figure:
    """One row per model, layer and SAE: Δ of every term, its mean, and random cuts of controls.

    Below, where a model was studied at several layers, the mean by layer. ``places`` is
    ``compare_places(jaccard)``; ``random_models`` have random weights.
    """
    title = "Where in the model senses separate"
    if places.is_empty():
        return sentence_figure(title, "No term could be estimated.")
    places = places.sort(pl.col("model").is_in(list(random_models)), *SOURCE)
    rows = [row + 0.4 * block for row, block in enumerate(places["model"].rle_id())]
    lines = places.filter(pl.col("layer").n_unique().over("model", "sae") > 1)
    bodies = [(rows[-1] + 1) * 0.42, *([PROFILE_IN] if lines.height else [])]
    figure, (axis, *profile) = column(bodies, left_in=3.9, right_in=1.1, gap_in=0.9)
    axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    headline(
        figure,
        title,
        "Δ overlap of the strongest latents, same sense minus other sense. Bars: 95% "
        "intervals of the mean over terms.",
    )
    terms = jaccard.filter(pl.col("kind") == "polysemous")
    for row, place in zip(rows, places.iter_rows(named=True), strict=True):
        here = terms.filter(
            pl.all_horizontal(pl.col(name) == place[name] for name in (*SOURCE, "k"))
        )
        values = here["delta"].drop_nulls()
        axis.plot(values, [row - 0.16] * len(values), "|", color=WITHIN, alpha=0.55, ms=7, mew=1.2)
        annotate(axis, 1.02, row, f"{place['n_separated']} of {place['n_terms']}")
    columns = (places["delta"], places["delta_low"], places["delta_high"])
    shifted = [row + 0.05 for row in rows]
    intervals(axis, shifted, *(c.cast(pl.Float64) for c in columns), color=WITHIN)
    low, high = (places[f"chance_delta_{end}"].cast(pl.Float64) for end in ("low", "high"))
    axis.hlines([row - 0.16 for row in rows], low, high, color=CUTS, lw=6, zorder=1)
    axis.text(1.02, 1.02, "separated", transform=axis.transAxes, fontsize=7.5, va="bottom")
    key(
        axis,
        [
            ("|", WITHIN, "one ambiguous term"),
            ("o", WITHIN, "their mean"),
            ("s", CUTS, "random cuts of controls"),
        ],
    )
    labels = places["model"].to_list()
    details = [
        ("random weights, " if model in random_models else "") + f"layer {layer}, {sae}"
        for model, layer, sae in places.select(SOURCE).iter_rows()
    ]
    firsts = [
        label if index == 0 or label != labels[index - 1] else ""
        for index, label in enumerate(labels)
    ]
    row_labels(axis, rows, firsts, details)
    stripes(axis, rows)
    reference(axis, 0.0)
    limits(axis, rows[-1] + 1)
    axis.set_xlabel("Δ overlap")
    for below in profile:
        _draw_profile(below, lines, random_models)
    return figure


def _draw_profile(axis: Axes, places: pl.DataFrame, random_models: set[str]) -> None:
    """Mean Δ by layer, a line for each model and SAE; dashed for random weights."""
    shift = 0.0
    groups = places.sort(SOURCE).group_by("model", "sae", maintain_order=True)
    for index, ((model, sae), part) in enumerate(groups):
        look, random = index % len(MARKERS), model in random_models
        color = CONTROL if random else SENSES[look]
        layers = part["layer"] + shift
        axis.vlines(layers, part["delta_low"], part["delta_high"], color=color, lw=1.4)
        style = (0, (4, 3)) if random else "-"
        name = f"{model}, {sae}" if places["sae"].n_unique() > 1 else model
        axis.plot(layers, part["delta"], marker=MARKERS[look], color=color, ls=style, label=name)
        shift += 0.06
    axis.axhline(0, color=CONTROL, lw=0.9, ls=(0, (4, 3)))
    axis.set_xticks(places["layer"].unique().sort().to_list())
    axis.margins(x=0.1)
    axis.set_xlabel("layer")
    axis.set_ylabel("mean Δ overlap")
    axis.legend(loc="upper right", bbox_to_anchor=(-0.16, 1.05), frameon=False, fontsize=7.5)
    axis.set_title("by layer")
