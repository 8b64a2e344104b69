"""Formulas without what the data cannot tell apart.

A term that is constant in the data (one model, one layer, one lemma), or that is a
combination of the terms before it, is dropped, and the fit says so. A constant contrast
of interest is not dropped: without it there is no question left, so nothing is fitted.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Specification:
    """A model to fit.

    ``response``    what the tables call it
    ``left``        left side of the formula: a variable or an R expression of one
    ``interest``    main effects of these variables, and with ``interaction`` theirs
    ``planned``     the contrasts of coefficients that involve one of these are planned
    ``crossed``     a variable the interest is crossed with, where it varies
    ``additive``    further fixed effects: variables or R expressions of one variable
    ``random``      grouping factor -> effects that vary by it besides the intercept
    ``engine``      lmer, beta or gamma
    """

    response: str
    specification: str
    left: str
    interest: tuple[str, ...]
    interaction: bool
    planned: tuple[str, ...]
    crossed: str | None
    additive: tuple[str, ...]
    random: dict[str, tuple[str, ...]]
    engine: str

    @property
    def variables(self) -> set[str]:
        """Every column the specification needs."""
        crossed = [self.crossed] if self.crossed else []
        named = [self.left, *self.interest, *crossed, *self.additive, *self.random]
        return {_inner(name) for name in named}


@dataclass(frozen=True)
class Formula:
    text: str
    dropped: str  # what the specification has and the data cannot tell, "" if nothing
    reason: str  # why nothing can be fitted, "" if it can


def build_formula(spec: Specification, table: pl.DataFrame) -> Formula:
    """The formula of ``spec`` as far as ``table`` carries it."""
    if table.is_empty():
        return Formula("", "", "there are no rows")
    interest = [name for name in spec.interest if table[name].n_unique() > 1]
    dropped = [name for name in spec.interest if name not in interest]
    reason = _reason(spec, table, interest)
    fixed = _design(table, interest)
    crossing = ""
    if spec.crossed is not None:
        if _adds(fixed, table, spec.crossed):
            fixed = _extended(fixed, table, spec.crossed)
            crossing = f" * {spec.crossed}"
        else:
            dropped.append(spec.crossed)
    additive = []
    for name in spec.additive:
        if _adds(fixed, table, name):
            fixed = _extended(fixed, table, name)
            additive.append(name)
        else:
            dropped.append(name)
    random = []
    for group, slopes in spec.random.items():
        if table[group].n_unique() > 1:
            varying = " + ".join(["1", *(slope for slope in slopes if slope in interest)])
            random.append(f"({varying} | {group})")
        else:
            dropped.append(f"(1 | {group})")
    together = (" * " if spec.interaction else " + ").join(interest) + crossing or "1"
    text = f"{spec.left} ~ " + " + ".join([together, *additive, *random])
    if not random and not reason:
        reason = "no grouping factor has more than one level"
    return Formula(text, ", ".join(dropped), reason)


def _reason(spec: Specification, table: pl.DataFrame, interest: list[str]) -> str:
    response = _inner(spec.left)
    if table[response].n_unique() == 1:
        return f"{response} does not vary"
    if not interest:
        only = ", ".join(f"{name} is always {table[name][0]}" for name in spec.interest)
        return only or "there is no contrast"
    return ""


def _inner(expression: str) -> str:
    """The variable of ``f(variable)`` or ``variable``."""
    return expression.split("(")[-1].rstrip(")")


def _columns(table: pl.DataFrame, name: str) -> np.ndarray:
    column = table[_inner(name)]
    if column.dtype.is_numeric():
        return column.cast(pl.Float64).to_numpy()[:, None]
    return column.cast(pl.String).to_dummies(drop_first=True).to_numpy().astype(float)


def _design(table: pl.DataFrame, names: list[str]) -> np.ndarray:
    return np.hstack([np.ones((table.height, 1)), *(_columns(table, name) for name in names)])


def _extended(design: np.ndarray, table: pl.DataFrame, name: str) -> np.ndarray:
    return np.hstack([design, _columns(table, name)])


def _adds(design: np.ndarray, table: pl.DataFrame, name: str) -> bool:
    """Whether every column of ``name`` is independent of ``design`` [rows, columns]."""
    if table[_inner(name)].n_unique() < 2:
        return False
    wider = np.unique(_extended(design, table, name), axis=0)
    rank = int(np.linalg.matrix_rank(wider))
    return rank == wider.shape[1]
