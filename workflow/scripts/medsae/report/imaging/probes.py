"""What can be read off each encoder's embeddings, controls beside."""

import polars as pl
from matplotlib.figure import Figure

from medsae.report.imaging.data import CONTROL_COLUMNS, handles, looks
from medsae.report.marks import limits, reference, row_labels, stripes
from medsae.report.style import headline, page, sentence_figure

TITLE = "What linear probes read off the embeddings of new patients"


def task_means(probes: pl.DataFrame, split: str = "test") -> pl.DataFrame:
    """Mean AUROC of each task's targets, on the targets that every encoder estimates."""
    table = probes.filter(
        (pl.col("split") == split)
        & (pl.col("representation") == "dense")
        & pl.col("auroc").is_not_null()
    )
    n_encoders = table["encoder"].n_unique()
    common = table.filter(pl.col("encoder").n_unique().over("target") == n_encoders)
    return (
        common.group_by("task", "encoder", maintain_order=True)
        .agg(
            pl.col(*CONTROL_COLUMNS).first(),
            auroc=pl.col("auroc").mean(),
            lowest=pl.col("auroc").min(),
            highest=pl.col("auroc").max(),
            n_targets=pl.len(),
            n_patients=pl.col("n_patients").min(),
        )
        .sort("task", "encoder")
    )


def draw_probes(means: pl.DataFrame) -> Figure:
    """One row per task, one mark per encoder; bars span the task's targets."""
    if means.is_empty():
        return sentence_figure(TITLE, "No target could be estimated on the test slices.")
    styles = looks(means, "encoder")
    tasks = means["task"].unique(maintain_order=True).to_list()
    figure, (axis,) = page(max(1.2, len(tasks) * 0.5), left_in=2.3, right_in=1.9)
    headline(figure, TITLE, "Mean AUROC over a task's targets; bars: lowest and highest target.")
    details = []
    for row, task in enumerate(tasks):
        part = means.filter(pl.col("task") == task)
        details.append(f"{part['n_targets'][0]} targets · {part['n_patients'][0]}+ patients")
        for place, values in enumerate(part.iter_rows(named=True)):
            color, marker = styles[values["encoder"]]
            y = row + 0.6 * (place - (part.height - 1) / 2) / max(part.height, 2)
            axis.hlines(y, values["lowest"], values["highest"], color=color, lw=0.9)
            axis.plot(values["auroc"], y, marker, color=color, ms=5)
    row_labels(axis, list(map(float, range(len(tasks)))), tasks, details)
    stripes(axis, list(map(float, range(len(tasks)))))
    reference(axis, 0.5, "chance", -0.5)
    limits(axis, len(tasks))
    axis.set_xlabel("AUROC")
    axis.legend(handles=handles(styles), loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure
