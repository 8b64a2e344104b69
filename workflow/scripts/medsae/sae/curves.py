"""A run's curves: as a figure from its metrics, and live where TensorBoard is installed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import polars as pl
from matplotlib.figure import Figure
from torch import Tensor

from medsae.io import atomic_path
from medsae.sae import parallel

PANELS = (
    ("fraction of variance unexplained", ("fvu", "val_fvu"), "log"),
    ("active latents per token (L0)", ("l0", "val_l0"), "linear"),
    ("dead latents (share)", ("dead_fraction",), "linear"),
    ("tokens per second", ("tokens_per_s",), "linear"),
)
LABELS = {"fvu": "training", "val_fvu": "validation", "l0": "training", "val_l0": "validation"}


def plot_training(metrics: str | Path, figure: str | Path) -> None:
    """Draw ``train_metrics.parquet`` to ``figure``, in the format of its suffix."""
    table = pl.read_parquet(metrics)
    with matplotlib.rc_context({"svg.hashsalt": "medsae", "font.size": 9}):
        drawn = Figure(figsize=(8, 5), layout="constrained")
        for axes, (title, columns, scale) in zip(drawn.subplots(2, 2).flat, PANELS, strict=True):
            for column in columns:
                known = table.select("n_tokens", column).drop_nulls()
                style = "o-" if column.startswith("val_") else "-"
                axes.plot(
                    known["n_tokens"], known[column], style, ms=3, lw=1, label=LABELS.get(column)
                )
            axes.set(title=title, xlabel="training tokens", yscale=scale)
            axes.spines[["top", "right"]].set_visible(False)
            if len(columns) > 1:
                axes.legend(frameon=False)
        with atomic_path(figure) as temporary:
            metadata = {"Date": None} if Path(figure).suffix in (".svg", ".pdf") else {}
            drawn.savefig(temporary, dpi=150, metadata=metadata)


class EventLog:
    """TensorBoard events of a run in ``folder``; does nothing where it is not installed."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._writer: Any = None
        if parallel.rank() != 0:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def add_histogram(self, name: str, values: Tensor, step: int) -> None:
        """Write the distribution of ``values`` at ``step``."""
        if self._writer is not None and values.numel():
            self._writer.add_histogram(name, values, step)

    def add(self, row: Mapping[str, float | int | None]) -> None:
        """Write every number of a metrics row at its step."""
        if self._writer is not None:
            for name, value in row.items():
                if name != "step" and value is not None:
                    self._writer.add_scalar(name, value, row["step"])
            self._writer.flush()
