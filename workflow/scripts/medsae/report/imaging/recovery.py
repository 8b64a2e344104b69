"""How many features it takes: recovery above chance against the number of features."""

import polars as pl
from matplotlib.figure import Figure

from medsae.report.imaging.data import CONTROL_COLUMNS, counts_axis, handles, looks
from medsae.report.style import MUTED, headline, page, sentence_figure

TITLE = "How many features recover what the embedding knows"


def mean_curves(recovery: pl.DataFrame, split: str = "test") -> pl.DataFrame:
    """Mean curve of each encoder's SAE over the targets common to all of them."""
    table = recovery.filter(
        (pl.col("split") == split) & pl.col("recovery_above_chance").is_not_null()
    )
    n = table["base_model"].n_unique()
    common = table.filter(pl.col("base_model").n_unique().over("target") == n)
    return (
        common.group_by("base_model", "sae_config", "n_features")
        .agg(
            pl.col(*CONTROL_COLUMNS).first(),
            auroc=pl.col("auroc").mean(),
            auroc_dense=pl.col("auroc_dense").mean(),
            recovery=pl.col("recovery").mean(),
            recovery_above_chance=pl.col("recovery_above_chance").mean(),
            n_targets=pl.len(),
        )
        .sort("base_model", "sae_config", "n_features")
    )


def draw_recovery(curves: pl.DataFrame) -> Figure:
    """Recovery above chance (left) and AUROC (right) of the chosen SAE of each encoder."""
    if curves.is_empty():
        return sentence_figure(TITLE, "No target can be compared across all encoders.")
    styles = looks(curves, "base_model")
    figure, (left, right) = page(3.0, ratios=(1, 1), left_in=0.8, right_in=1.9, share_y=False,
                                 gap_in=0.75)  # fmt: skip
    n = curves["n_targets"][0]
    headline(
        figure,
        TITLE,
        f"Test scans. Mean over the {n} targets that every encoder's probe estimates.",
    )
    for (encoder,), group in curves.group_by("base_model", maintain_order=True):
        color, marker = styles[str(encoder)]
        x = group["n_features"]
        left.plot(x, group["recovery_above_chance"], marker=marker, color=color)
        right.plot(x, group["auroc"], marker=marker, color=color)
        right.axhline(group["auroc_dense"][0], color=color, lw=0.8, ls=(0, (4, 3)))
    for axis in (left, right):
        counts_axis(axis, (1, 3, 10, 30, 100))
        axis.set_xlabel("features")
    left.axhline(1, color=MUTED, lw=0.8, ls=(0, (4, 3)))
    left.set_ylabel("recovery above chance")
    right.set_ylabel("AUROC (dashed: the embedding)")
    right.legend(handles=handles(styles, "-"), loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure
