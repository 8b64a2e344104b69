"""Contrasts of the mixed-effects models, or why a model could not be estimated."""

from textwrap import wrap

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medsae.report.marks import annotate, intervals, limits, q_text, reference, row_labels, stripes
from medsae.report.style import (
    CONTROL,
    LABEL_LEFT_IN,
    MUTED,
    WITHIN,
    column,
    headline,
    sentence_figure,
    text_width_in,
)
from medsae.report.tables import ALPHA

PLANNED, UNAGGREGATED = "planned", "unaggregated"
SCALES = {
    ("jaccard", PLANNED): "Δ overlap of all latents, by term",
    ("jaccard_at_10", PLANNED): "Δ overlap of the 10 strongest latents, by term",
    ("entropy", PLANNED): "normalised entropy, rarefied, by term",
    ("delta_ce", PLANNED): "asinh ΔCE, difference in differences, by term",
    ("delta_ce_on_sense", PLANNED): "asinh ΔCE, by term",
    ("jaccard", UNAGGREGATED): "unaggregated: overlap of all latents of pairs",
    ("jaccard_at_10", UNAGGREGATED): "unaggregated: overlap of the 10 strongest latents of pairs",
    ("delta_ce", UNAGGREGATED): "unaggregated: asinh ΔCE of occurrences",
    ("jaccard", "published"): "published formula: overlap of all latents (logit)",
    ("entropy", "published"): "published formula: normalised entropy (logit)",
    ("delta_ce", "published"): "published formula: positive ΔCE (log)",
}
KEY = ("response", "specification")
LABEL_SIZE = 8
LABEL_LETTERS = 54  # of a line
LINE_IN = 0.15


def draw_mixed_effects(contrasts: pl.DataFrame, fits: pl.DataFrame) -> Figure:
    """A panel per fit with its contrasts, from ``fdr_correction.csv``.

    ``fits`` is ``fits.csv``: a fit that is not usable keeps a panel that says why.
    """
    title = "Mixed-effects models"
    fits = fits.filter(pl.col("specification") != UNAGGREGATED)
    if fits.is_empty():
        return sentence_figure(title, "No model was fitted.")
    parts = [
        contrasts.filter(pl.all_horizontal(pl.col(name) == fit[name] for name in KEY))
        for fit in fits.iter_rows(named=True)
    ]
    labels = [[contrast_label(text) for text in part["contrast"]] for part in parts]
    written = [label for group in labels for label in group]
    lines = max((label.count("\n") + 1 for label in written), default=1)
    step = max(0.3, LINE_IN * lines + 0.06)
    widest = max((text_width_in(label, LABEL_SIZE) for label in written), default=2.0)
    bodies = [max(1, part.height) * step for part in parts]
    left = LABEL_LEFT_IN + widest + 0.2
    figure, axes = column(bodies, left_in=left, right_in=0.7, top_in=1.15, gap_in=0.65)
    planned = contrasts.filter(pl.col("specification") == PLANNED)
    n_found = _is_found(planned).sum()
    headline(
        figure,
        f"{title}: {n_found} of {planned.height} planned contrasts differ from zero",
        "Estimates with 95% intervals, each on the scale of its response. Filled: q < 0.05, where "
        "the fit is sound. Grey: formulas as published.",
    )
    for axis, part, fit, names in zip(axes, parts, fits.iter_rows(named=True), labels, strict=True):
        _draw_fit(axis, part, fit, names)
    return figure


def _is_found(contrasts: pl.DataFrame) -> pl.Series:
    """Which contrasts differ from zero in a fit that is as it should be."""
    found = (pl.col("qvalue") < ALPHA) & (pl.col("status") == "ok")
    return contrasts.select(found.fill_null(False))["qvalue"]


def contrast_label(contrast: str) -> str:
    """A contrast over as many lines as it takes: one for each variable, long ones wrapped."""
    parts = contrast.replace(", ", ",\n").split("\n")
    return "\n".join(line for part in parts for line in wrap(part, LABEL_LETTERS))


def fit_title(fit: dict) -> str:
    """What was fitted, to how many rows, and whether it went well."""
    key = (fit["response"], fit["specification"])
    remark = "" if fit["status"] in ("ok", "not estimable") else f", {fit['status']}"
    return f"{SCALES.get(key, ', '.join(key))} (n = {fit['n']:,}{remark})"


def _draw_fit(axis: Axes, part: pl.DataFrame, fit: dict, labels: list[str]) -> None:
    axis.set_title(fit_title(fit), fontsize=8.5)
    rows = list(range(max(1, part.height)))
    limits(axis, len(rows))
    if part["estimate"].is_null().all():
        axis.set_axis_off()
        text = f"not estimable: {fit['reason'] or fit['status']}"
        axis.text(0, 0.5, text, transform=axis.transAxes, color=MUTED, va="center")
        return
    filled = _is_found(part)
    values = part.select("estimate", "conf_low", "conf_high").cast(pl.Float64).to_numpy().T
    color = WITHIN if fit["specification"] == PLANNED else CONTROL
    intervals(axis, rows, *values, color=color, filled=filled)
    row_labels(axis, rows, labels)
    axis.tick_params(axis="y", labelsize=LABEL_SIZE)
    stripes(axis, rows)
    reference(axis, 0.0)
    for row, q in zip(rows, part["qvalue"], strict=True):
        annotate(axis, 1.02, row, q_text(q))
