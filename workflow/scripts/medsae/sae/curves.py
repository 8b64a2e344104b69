"""A run's curves, live, where TensorBoard is installed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from medsae.sae import parallel


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
