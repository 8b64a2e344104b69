"""How many latents share the work of representing a sense."""

import polars as pl
from matplotlib.figure import Figure

from medsae.report.marks import CONTROL_STEP, annotate, intervals, key, limits, row_labels, stripes
from medsae.report.style import CONTROL, MARKERS, SENSES, headline, page, sentence_figure
from medsae.report.tables import interval_columns

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


def draw_entropy(table: pl.DataFrame, where: str) -> Figure:
    """One row per term: rarefied entropy of each sense, from ``entropy_per_sense.csv``."""
    title = "Entropy of the latents of each sense"
    if table["rarefied_entropy"].is_null().all():
        return sentence_figure(title, f"{where}: no sense has enough occurrences.")
    senses = table.filter(pl.col("kind") == "polysemous").sort("lemma", "sense")
    controls = table.filter(pl.col("kind") == "control").sort(
        ["rarefied_entropy", "lemma"], descending=[True, False], nulls_last=True
    )
    terms = senses.partition_by("lemma", maintain_order=True)
    rows = [float(index) for index in range(len(terms))]
    control_rows = [len(terms) + 0.4 + CONTROL_STEP * index for index in range(controls.height)]
    n_rows = max([*rows, *control_rows]) + 1
    figure, (axis,) = page(n_rows * 0.235, left_in=3.3, right_in=0.6)
    headline(
        figure,
        title,
        f"{where}. Every sense is cut to the same number of patients. Bars: 95% "
        "intervals over patients.",
    )
    for row, term in zip(rows, terms, strict=True):
        height = 0.36 / max(1, term.height - 1)
        for index, values in enumerate(interval_columns(term, "rarefied_entropy").T):
            y = row + height * (index - (term.height - 1) / 2)
            look = index % len(SENSES)
            intervals(axis, [y], *values[:, None], color=SENSES[look], marker=MARKERS[look], size=4)
        reasons = term["reason"].drop_nulls()
        if len(reasons):
            annotate(axis, 0.01, row, reasons[0])
    columns = interval_columns(controls, "rarefied_entropy")
    intervals(axis, control_rows, *columns, color=CONTROL, size=3.5)
    named = zip(ORDINALS, SENSES, MARKERS, strict=True)
    widest = max((term.height for term in terms), default=0)
    entries = [(marker, color, f"{name} sense named") for name, color, marker in named][:widest]
    key(axis, [*entries, ("o", CONTROL, "one meaning")])
    row_labels(
        axis,
        rows + control_rows,
        [term["lemma"][0] for term in terms] + controls["lemma"].to_list(),
        [_detail(term) for term in terms] + [f"{n:,}" for n in controls["n_occurrences"]],
        [8.5] * len(rows) + [7.0] * len(control_rows),
    )
    stripes(axis, rows + control_rows)
    limits(axis, n_rows)
    axis.set_xlabel("entropy of the activation mass over latents (bits)")
    return figure


def _detail(term: pl.DataFrame) -> str:
    return " · ".join(f"{sense} {n:,}" for sense, n in term.select("sense", "n_occurrences").rows())
