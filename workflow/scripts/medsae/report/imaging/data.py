"""What the figures of the imaging study share: reading tables, telling encoders apart."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from medsae.imaging.result_columns import CONFIG_RANKING
from medsae.report.style import CONTROL, MARKERS, SENSES

RANDOM_SUFFIX = "-random"
PIXELS = "pixels"

RANKING_TEXT = frozenset(["base_model", "sae_config", "dict_sizes", "top_k_values", "reason"])
RANKING_NUMBERS = tuple(name for name in CONFIG_RANKING if name not in RANKING_TEXT)
RECOVERY_NUMBERS = ("n_features", "auroc", "auroc_dense", "recovery", "recovery_above_chance")


def read_table(path: str | Path, numbers: Sequence[str]) -> pl.DataFrame:
    """The CSV at ``path`` with ``numbers`` as floats even where a column holds nothing."""
    table = pl.read_csv(path, infer_schema_length=None)
    return table.with_columns(
        pl.col(name).cast(pl.Float64) for name in numbers if name in table.columns
    )


def read_probes(paths: Iterable[str | Path]) -> pl.DataFrame:
    """``linear_probes.csv`` of several encoders, one below the other."""
    numbers = ("auroc", "auroc_low", "auroc_high")
    return _stacked(paths, numbers)


def read_recovery(paths: Iterable[str | Path]) -> pl.DataFrame:
    """``recovery.csv`` of several SAEs, one below the other."""
    return _stacked(paths, RECOVERY_NUMBERS)


def _stacked(paths: Iterable[str | Path], numbers: Sequence[str]) -> pl.DataFrame:
    tables = [
        read_table(path, numbers).with_columns(pl.col("split", "reason").cast(pl.String))
        for path in paths
    ]
    return pl.concat(tables, how="diagonal_relaxed")


def is_control(encoder: str) -> bool:
    """Whether an encoder is a control: random weights, or no network at all."""
    return encoder.endswith(RANDOM_SUFFIX) or encoder == PIXELS


def looks(encoders: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each encoder: a twin has its original's marker, in grey."""
    names = list(dict.fromkeys(encoders))
    originals = [name for name in names if not is_control(name)]
    own = {
        name: (SENSES[i % len(SENSES)], MARKERS[i % len(MARKERS)])
        for i, name in enumerate(originals)
    }
    out = {}
    for name in names:
        twin = name.removesuffix(RANDOM_SUFFIX)
        out[name] = own.get(name) or (CONTROL, own[twin][1] if twin in own else "X")
    return out


def counts_axis(axis: Axes, ticks: Sequence[int]) -> None:
    """A logarithmic axis of counts with plain numbers at ``ticks``."""
    axis.set_xscale("log")
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()


def handles(styles: dict[str, tuple[str, str]], line: str = "none") -> list[Line2D]:
    """Entries of a legend."""
    return [
        Line2D([], [], color=color, marker=marker, ls=line, label=name)
        for name, (color, marker) in styles.items()
    ]
