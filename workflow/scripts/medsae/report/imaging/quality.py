"""Does a better autoencoder keep more of what the embedding knows? One point per SAE.

Left: on validation scans, which choose among SAEs. Right: how the same SAEs fare from split to
split, which tells how far other scans differ from those they learned from.
"""

import polars as pl
from matplotlib.figure import Figure

from medsae.imaging.columns import SPLITS
from medsae.report.imaging.data import handles, looks
from medsae.report.style import MUTED, headline, page, sentence_figure

TITLE = "Quality of the autoencoder and what few features recover"


def draw_quality(ranking: pl.DataFrame) -> Figure:
    """Variance explained against recovery at ten features, from ``config_ranking.csv``."""
    table = ranking.drop_nulls(["val_fvu"])
    if table.is_empty():
        return sentence_figure(TITLE, "There is no autoencoder.")
    styles = looks(table, "base_model")
    figure, (axis, shift) = page(
        3.2, ratios=(1.3, 1), left_in=0.9, right_in=1.9, share_y=False, gap_in=0.8
    )
    headline(
        figure, TITLE, "Left: validation slices. One point, one line per SAE. Grey: controls; "
        "hollow: collapsed; without a point at left: no recovery to compare.",
    )  # fmt: skip
    for row in table.iter_rows(named=True):
        color, marker = styles[row["base_model"]]
        face = "white" if row["collapsed"] else color
        if row["recovery_at_10"] is not None:
            axis.plot(1 - row["val_fvu"], row["recovery_at_10"], marker, color=color, mfc=face)
        fvu = [row[f"{split}_fvu"] for split in SPLITS]
        explained = [float("nan") if value is None else 1 - value for value in fvu]
        shift.plot(range(len(SPLITS)), explained, marker=marker, color=color, mfc=face, lw=0.9)
    axis.axhline(0, color=MUTED, lw=0.8, ls=(0, (4, 3)))
    axis.set_xlabel("variance explained (1 − FVU)")
    axis.set_ylabel("recovery above chance with 10 features")
    shift.set_xticks(range(len(SPLITS)), SPLITS)
    shift.set_ylabel("variance explained (1 − FVU)")
    shift.axhline(0, color=MUTED, lw=0.8, ls=(0, (4, 3)))
    shift.legend(handles=handles(styles), loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure
