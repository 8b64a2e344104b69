"""What is known about a slice, as binary concepts: ``organ:liver``, ``plane:axial``, ``sex:f``.

One vocabulary for monosemanticity, probes, naming and retrieval. A concept can be unknown for
a slice (a scan without masks, a patient whose sex is not recorded): unknown is not absent.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medsae.imaging import columns as col

ORGAN, MODALITY, PLANE, SEX, AGE = "organ", "modality", "plane", "sex", "age"
CONTENT = "content"
EMPTY = f"{CONTENT}:no structure"
"""A slice of a scan with masks of many structures that cuts none of them."""

AGE_BREAKS = (40, 60, 80)
AGE_GROUPS = ("<40", "40-60", "60-80", ">=80")
MIN_COVERED = 10
"""Masks of fewer structures say nothing about whether a slice is without any."""

MAX_VALUES = 12
"""A metadata column with more values than this is an identifier or a measurement."""

NOT_CONCEPTS = frozenset(
    (
        *(col.SLICE_KEY, col.SCAN, col.MODALITY, col.IMAGE_ID, col.PLANE, col.SLICE_INDEX),
        *(col.PATIENT_ID, col.SEX, col.AGE, col.ORGANS, col.STRUCTURES, col.SPLIT),
    )
)


@dataclass(frozen=True)
class Concepts:
    """``present``, ``known`` bool [n, K]; ``names`` like ``organ:liver``.

    ``present`` is False wherever ``known`` is: what is unknown has to be left out, not counted.
    """

    names: tuple[str, ...]
    present: NDArray[np.bool_]
    known: NDArray[np.bool_]

    @property
    def families(self) -> NDArray[np.str_]:
        """What each concept is about: the part of its name before the colon."""
        return np.array([name.split(":", 1)[0] for name in self.names])

    def family(self, name: str) -> NDArray[np.intp]:
        """Columns of one family."""
        return np.flatnonzero(self.families == name)

    def index(self, name: str) -> int:
        """Column of the concept ``name``."""
        return self.names.index(name)

    def of_rows(self, rows: NDArray[np.integer]) -> "Concepts":
        """The same concepts of the slices ``rows``."""
        return Concepts(self.names, self.present[rows], self.known[rows])

    def of_family(self, name: str) -> "Concepts":
        """The concepts of one family."""
        columns = self.family(name)
        names = tuple(self.names[column] for column in columns)
        return Concepts(names, self.present[:, columns], self.known[:, columns])


def concepts_of(slices: pl.DataFrame, metadata: bool = False) -> Concepts:
    """Every concept that some slice shows, families in a fixed order, names sorted.

    With ``metadata`` also the values of further columns: how a slice was made, not what it
    shows.
    """
    others = metadata_columns(slices) if metadata else []
    parts = [
        _categories(slices, col.MODALITY, MODALITY),
        _categories(slices, col.PLANE, PLANE),
        _organs(slices),
        _empty(slices),
        _categories(slices, col.SEX, SEX),
        _ages(slices),
        *(_categories(slices, name, name) for name in others),
    ]
    return Concepts(
        tuple(name for part in parts for name in part.names),
        np.concatenate([part.present for part in parts], axis=1),
        np.concatenate([part.known for part in parts], axis=1),
    )


def metadata_columns(slices: pl.DataFrame) -> list[str]:
    """Further columns of ``slices`` with a few values each, sorted by name."""
    return [
        name
        for name in sorted(slices.columns)
        if name not in NOT_CONCEPTS
        and not slices.schema[name].is_nested()
        and 2 <= slices[name].drop_nulls().n_unique() <= MAX_VALUES
    ]


def _categories(slices: pl.DataFrame, column: str, family: str) -> Concepts:
    if column not in slices.columns:
        return _nothing(slices.height)
    values = slices[column].cast(pl.String)
    names = sorted(values.drop_nulls().unique())
    cells = values.to_numpy()
    present = np.stack([cells == name for name in names], 1) if names else None
    if present is None:
        return _nothing(slices.height)
    known = np.repeat(values.is_not_null().to_numpy()[:, None], len(names), axis=1)
    return Concepts(tuple(f"{family}:{name}" for name in names), present & known, known)


def _ages(slices: pl.DataFrame) -> Concepts:
    if col.AGE not in slices.columns:
        return _nothing(slices.height)
    ages = slices[col.AGE].cast(pl.Float64)
    groups = np.digitize(ages.fill_null(0).to_numpy(), AGE_BREAKS)
    table = pl.DataFrame({col.AGE: np.array(AGE_GROUPS)[groups], "known": ages.is_not_null()})
    named = table.select(pl.when("known").then(pl.col(col.AGE)))
    return _categories(named, col.AGE, AGE)


def _organs(slices: pl.DataFrame) -> Concepts:
    if col.ORGANS not in slices.columns:
        return _nothing(slices.height)
    names = sorted(slices[col.ORGANS].explode().drop_nulls().unique())
    number = {name: i for i, name in enumerate(names)}
    present = _membership(slices[col.ORGANS], number)
    labelled = slices[col.ORGANS].is_not_null().to_numpy()[:, None]
    known = np.repeat(labelled, len(names), axis=1)
    if col.STRUCTURES in slices.columns:
        # a brain atlas says nothing about the liver
        stated = slices[col.STRUCTURES].is_not_null().to_numpy()[:, None]
        known &= ~stated | _membership(slices[col.STRUCTURES], number)
    return Concepts(tuple(f"{ORGAN}:{name}" for name in names), present & known, known)


def _empty(slices: pl.DataFrame) -> Concepts:
    if col.ORGANS not in slices.columns or slices[col.ORGANS].is_null().all():
        return _nothing(slices.height)
    n_shown = slices[col.ORGANS].list.len()
    known = n_shown.is_not_null()
    if col.STRUCTURES in slices.columns:
        known &= ((n_shown > 0) | (slices[col.STRUCTURES].list.len() >= MIN_COVERED)).fill_null(
            False
        )
    empty = (n_shown == 0).fill_null(False) & known
    if not empty.any():
        return _nothing(slices.height)
    return Concepts((EMPTY,), empty.to_numpy()[:, None], known.to_numpy()[:, None])


def _membership(lists: pl.Series, number: dict[str, int]) -> NDArray[np.bool_]:
    table = np.zeros((len(lists), len(number)), dtype=bool)
    cells = pl.DataFrame({"name": lists}).with_row_index("row").explode("name").drop_nulls()
    cells = cells.filter(pl.col("name").is_in(list(number)))
    if cells.height:
        columns = cells["name"].replace_strict(number, return_dtype=pl.Int64).to_numpy()
        table[cells["row"].to_numpy(), columns] = True
    return table


def _nothing(n: int) -> Concepts:
    return Concepts((), np.zeros((n, 0), dtype=bool), np.zeros((n, 0), dtype=bool))
