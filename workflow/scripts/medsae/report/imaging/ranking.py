"""The ranking of the SAEs of each encoder, with what it is made of."""

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from medsae.report.imaging.data import looks
from medsae.report.marks import annotate, follow, limits, row_labels, stripes
from medsae.report.style import headline, page, sentence_figure

TITLE = "Configurations, best first within each encoder"


def draw_ranking(ranking: pl.DataFrame) -> Figure:
    """Monosemanticity and features needed, one row per SAE, from ``config_ranking.csv``."""
    if ranking.is_empty():
        return sentence_figure(TITLE, "There is no configuration.")
    styles = looks(ranking, "base_model")
    rows = list(range(ranking.height))
    figure, (mono, needed) = page(len(rows) * 0.26, ratios=(1, 1), left_in=4.2, right_in=0.6)
    headline(
        figure,
        TITLE,
        "Filled: of as many features as the smallest dictionary has, goals never reached "
        "counted. Open: as published.",
    )
    for axis, build, published in (
        (mono, "M_config_fixed", "M_config"),
        (needed, "restricted_mean_n", "mean_n_features"),
    ):
        for name, filled in ((build, True), (published, False)):
            values = ranking[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            for row, value, encoder in zip(rows, values, ranking["base_model"], strict=True):
                color, marker = styles[encoder]
                face = color if filled else "white"
                axis.plot(value, row, marker, color=color, mfc=face, ms=5, zorder=3 + filled)
        stripes(axis, rows)
    for row, reason, n in zip(rows, ranking["reason"], ranking["n_targets"], strict=True):
        annotate(needed, 1.01, row, f"{n:.0f} targets" if reason is None else "no rank")
    labels = [f"{name}  {sae}" for name, sae in ranking.select("base_model", "sae_config").rows()]
    places = [
        "" if place is None or np.isnan(place) else f"#{int(place)}"
        for place in ranking["build_final_rank"].cast(pl.Float64)
    ]
    row_labels(mono, rows, labels, places)
    follow(needed)
    limits(mono, len(rows))
    mono.set_xlabel("M of the ten best features")
    needed.set_xlabel("features needed, mean (100: or more)")
    return figure
