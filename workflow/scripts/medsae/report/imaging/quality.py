"""Does a better autoencoder keep more of what the embedding knows? One point per SAE."""

import polars as pl
from matplotlib.figure import Figure

from medsae.report.imaging.data import handles, looks
from medsae.report.style import MUTED, headline, page, sentence_figure

TITLE = "Quality of the autoencoder and what few features recover"


def draw_quality(ranking: pl.DataFrame) -> Figure:
    """Variance explained against recovery at ten features, from ``config_ranking.csv``."""
    table = ranking.drop_nulls(["val_fvu", "recovery_at_10"])
    if table.is_empty():
        return sentence_figure(TITLE, "No target could be recovered on the held-out slices.")
    styles = looks(table["base_model"])
    figure, (axis,) = page(3.2, left_in=0.9, right_in=2.2)
    headline(figure, TITLE, "One point per SAE; grey: controls. Validation slices.")
    for (encoder,), group in table.group_by("base_model", maintain_order=True):
        color, marker = styles[str(encoder)]
        axis.plot(1 - group["val_fvu"], group["recovery_at_10"], marker, color=color, ls="none")
    axis.axhline(0, color=MUTED, lw=0.8, ls=(0, (4, 3)))
    axis.set_xlabel("variance explained (1 − FVU)")
    axis.set_ylabel("recovery above chance with 10 features")
    axis.legend(handles=handles(styles), loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure
