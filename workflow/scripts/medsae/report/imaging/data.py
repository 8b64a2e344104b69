"""What the figures of the imaging study share: reading tables, telling encoders apart."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from medsae.imaging.result_columns import CONFIG_RANKING
from medsae.report.style import CONTROL, MARKERS, SENSES

CONTROL_COLUMNS = ("control", "control_of")
RANKING_TEXT = frozenset(
    ["base_model", "sae_config", "dict_sizes", "top_k_values", "collapsed", "reason"]
)
RANKING_NUMBERS = tuple(
    name for name in CONFIG_RANKING if name not in RANKING_TEXT | set(CONTROL_COLUMNS)
)
RECOVERY_NUMBERS = ("n_features", "auroc", "auroc_dense", "recovery", "recovery_above_chance")


def read_table(path: str | Path, numbers: Sequence[str]) -> pl.DataFrame:
    """The CSV at ``path`` with ``numbers`` as floats even where a column holds nothing."""
    table = pl.read_csv(path, infer_schema_length=None)
    kinds = dict.fromkeys(numbers, pl.Float64) | dict.fromkeys(CONTROL_COLUMNS, pl.String)
    return table.with_columns(
        pl.col(name).cast(kind) for name, kind in kinds.items() if name in table.columns
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


def controls(table: pl.DataFrame, column: str) -> dict[str, str | None]:
    """Encoders that are controls, by the columns control and control_of: of which, if of any."""
    named = table.filter(pl.col("control").is_not_null())
    return dict(named.select(column, "control_of").unique(maintain_order=True).iter_rows())


def looks(table: pl.DataFrame, column: str) -> dict[str, tuple[str, str]]:
    """Colour and marker of each encoder: a control has its original's marker, in grey."""
    names = table[column].unique(maintain_order=True).to_list()
    control_of = controls(table, column)
    originals = [name for name in names if name not in control_of]
    own = {
        name: (SENSES[i % len(SENSES)], MARKERS[i % len(MARKERS)])
        for i, name in enumerate(originals)
    }
    other = (CONTROL, "X")
    twins = {name: (CONTROL, own.get(str(of), other)[1]) for name, of in control_of.items()}
    return {name: own.get(name) or twins[name] for name in names}


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
