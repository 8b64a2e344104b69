"""Formulas without what the data cannot tell apart.

A term that is constant in the data (one model, one layer, one lemma), or that is a
combination of the terms before it, is dropped, and the fit says so and why. A constant contrast
of interest is not dropped: without it there is no question left, so nothing is fitted.

Layers of several models are nested in them: each further layer of a model against its first,
centred within the model, so that models are compared on average over their own layers. As one
factor beside the model the layer would be that of random weights too; where models were not
studied at the same layers (10 and 20 of one, 8 and 16 of another) it cannot be one.
"""

import re
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from medsae.mixed_effects.data import PLACE

INTERCEPT = "(Intercept)"
MIN_LEMMAS = 3
"""Terms without which a test over terms is not tried."""


@dataclass(frozen=True)
class Specification:
    """A model to fit.

    ``response``    what the tables call it
    ``metric``      jaccard, entropy or delta_ce: what its results are kept with
    ``table``       the table it is fitted to: overlap, jaccard, entropy or delta_ce
    ``left``        left side of the formula: a variable or an R expression of one
    ``interest``    main effects of these variables, and with ``interaction`` theirs
    ``planned``     the contrasts of coefficients that involve one of these are planned
    ``crossed``     a variable the interest is crossed with, where it varies
    ``additive``    further fixed effects: variables or R expressions of one variable
    ``random``      grouping factor -> effects that vary by it besides the intercept
    ``engine``      lmer, beta or gamma
    ``difference``  of a response that is itself a contrast: what it says in words, and its
                    mean is planned; "" of any other response
    ``by_lemma``    rows are terms (once per model, layer and SAE): where no term is repeated
                    no random effect is needed, and the model is a linear one; its errors are
                    robust
    """

    response: str
    specification: str
    metric: str
    table: str
    left: str
    interest: tuple[str, ...]
    interaction: bool
    planned: tuple[str, ...]
    crossed: str | None
    additive: tuple[str, ...]
    random: dict[str, tuple[str, ...]]
    engine: str
    difference: str = ""
    by_lemma: bool = False

    @property
    def cluster(self) -> str:
        """The column whose levels are independent of each other, "" where errors are the model's.

        Of rows that are terms: in one model they may spread more than in another.
        """
        return "lemma" if self.by_lemma else ""

    @property
    def variables(self) -> set[str]:
        """Every column the specification needs."""
        crossed = [self.crossed] if self.crossed else []
        named = [self.left, *self.interest, *crossed, *self.additive, *self.random]
        return {_inner(name) for name in named}


@dataclass(frozen=True)
class Formula:
    text: str
    dropped: str  # what the specification has and the data cannot tell, with why; "" if nothing
    reason: str  # why nothing can be fitted, "" if it can
    data: pl.DataFrame  # the table with the columns that the text names
    crossed: bool  # whether the variable the interest is crossed with is in the text
    engine: str
    note: str  # how a term was rewritten, "" if none was
    layers: dict[str, str] = field(default_factory=dict)  # coefficients of layers, in words


def build_formula(spec: Specification, table: pl.DataFrame) -> Formula:
    """The formula of ``spec`` as far as ``table`` carries it."""
    if table.is_empty():
        return Formula("", "", "there are no rows", table, False, spec.engine, "")
    few: list[str] = []
    if spec.by_lemma:
        kept, few = _without_small_places(spec, table)
        if kept.is_empty():
            return Formula("", "", _few_terms(spec, table), table, False, spec.engine, "")
        table = kept
    interest = [name for name in spec.interest if table[name].n_unique() > 1]
    dropped = few + [f"{name} (constant)" for name in spec.interest if name not in interest]
    reason = _reason(spec, table, interest)
    fixed = _design(table, interest)
    right = [(" * " if spec.interaction else " + ").join(interest)]
    note, crossed = "", False
    layers: dict[str, str] = {}
    if spec.crossed is not None:
        if crossed := _adds(fixed, table, [spec.crossed]):
            fixed = _extended(fixed, table, [spec.crossed])
            right[0] = f"{right[0]} * {spec.crossed}".removeprefix(" * ")
        else:
            dropped.append(_why(table, spec.crossed))
    for name in spec.additive:
        names = [name]
        if name == "layer" and _is_nested(spec, table, fixed):
            table, layers = nested_layers(table)
            names = list(layers)
            note = "layer nested in model: models are compared on average over their layers"
        if names and _adds(fixed, table, names):
            fixed = _extended(fixed, table, names)
            right += names
            if names == ["layer"]:
                first, *others = sorted(table["layer"].unique().to_list())  # as R orders them
                layers = {f"layer{layer}": f"layer {layer} − {first}" for layer in others}
        else:
            dropped.append(_why(table, name))
            note, layers = ("", {}) if name == "layer" else (note, layers)
    random = _random(spec, table, interest, dropped)
    text = f"{spec.left} ~ " + " + ".join([*filter(None, right), *random])
    if not any(right):
        text = text.replace("~ ", "~ 1 + ", 1) if random else f"{spec.left} ~ 1"
    engine = spec.engine
    if not random and spec.by_lemma:
        engine = "lm"
    elif not random and not reason:
        reason = "no grouping factor has more than one level"
    return Formula(text, ", ".join(dropped), reason, table, crossed, engine, note, layers)


def _without_small_places(
    spec: Specification, table: pl.DataFrame
) -> tuple[pl.DataFrame, list[str]]:
    """``table`` without models and layers of fewer than `MIN_LEMMAS` terms, and which these are.

    Terms of each kind, where kinds are compared. A few terms would be tested against the spread of
    the others', and one alone would have none: robust errors take it for certain.
    """
    kinds = table.select(spec.interest).n_unique() if spec.interest else 1
    large = (
        table.group_by(*PLACE, *spec.interest)
        .agg(pl.col("lemma").n_unique().alias("n"))
        .filter(pl.col("n") >= MIN_LEMMAS)
        .group_by(PLACE)
        .len()
        .filter(pl.col("len") == kinds)
    )
    kept = table.join(large, on=PLACE, how="semi", maintain_order="left")
    gone = table.join(large, on=PLACE, how="anti")
    whole = gone.join(kept, on="model", how="anti")
    names = whole.select(pl.col("model").cast(pl.String)).unique().to_series().to_list()
    parts = gone.join(whole, on="model", how="anti").select(PLACE).unique().rows()
    names += [f"{model} layer {layer} {sae}" for model, layer, sae in parts]
    return kept, [f"{name} (fewer than {MIN_LEMMAS} terms)" for name in sorted(names)]


def nested_layers(table: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, str]]:
    """``table`` with a centred column for each further layer of a model, and what they say."""
    columns, layers_of = [], {}
    for (model,), part in table.sort("model").group_by("model", maintain_order=True):
        layers = sorted(part["layer"].unique().to_list(), key=lambda layer: (len(layer), layer))
        for layer in layers[1:]:
            name = f"layer_{layer}_of_{re.sub(r'[^A-Za-z0-9]', '_', str(model))}"
            share = (part["layer"] == layer).mean()
            here = (pl.col("layer") == layer).cast(pl.Float64) - share
            columns.append(pl.when(pl.col("model") == model).then(here).otherwise(0.0).alias(name))
            layers_of[name] = f"layer {layer} − {layers[0]}, {model}"
    return table.with_columns(columns), layers_of


def _is_nested(spec: Specification, table: pl.DataFrame, fixed: np.ndarray) -> bool:
    """Whether layers are layers of a model: where models differ in theirs, and in planned tests."""
    if table["layer"].n_unique() < 2:
        return False
    several = table["model"].n_unique() > 1
    return (spec.by_lemma and several) or not _adds(fixed, table, ["layer"])


def _random(
    spec: Specification, table: pl.DataFrame, interest: list[str], dropped: list[str]
) -> list[str]:
    random: list[str] = []
    seen = 1
    for group, slopes in spec.random.items():
        levels = table[group].n_unique()
        # over terms, a group of one row each is the residual, one that repeats another is that one
        wanted = seen < levels < table.height if spec.by_lemma else levels > 1
        if wanted:
            varying = " + ".join(["1", *(slope for slope in slopes if slope in interest)])
            random.append(f"({varying} | {group})")
            seen = levels
        elif levels == 1:
            dropped.append(f"(1 | {group}) (one level)")
        elif levels == table.height:
            dropped.append(f"(1 | {group}) (each level is a row)")
        else:
            dropped.append(f"(1 | {group}) (follows from the groups before it)")
    return random


def _why(table: pl.DataFrame, name: str) -> str:
    constant = table[_inner(name)].n_unique() < 2
    return f"{name} ({'constant' if constant else 'follows from the terms before it'})"


def _few_terms(spec: Specification, table: pl.DataFrame) -> str:
    """Why no model and layer has enough terms."""
    by_kind = table.group_by(*PLACE, *spec.interest).agg(pl.col("lemma").n_unique().alias("n"))
    fewest = by_kind.sort("n", *PLACE, *spec.interest).row(0, named=True)
    kinds = "".join(f"{fewest[name]} " for name in spec.interest)
    return f"{fewest['n']} {kinds}terms, fewer than {MIN_LEMMAS}"


def _reason(spec: Specification, table: pl.DataFrame, interest: list[str]) -> str:
    response = _inner(spec.left)
    if table[response].n_unique() == 1:
        return f"{response} does not vary"
    if not interest and not spec.difference:
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


def _extended(design: np.ndarray, table: pl.DataFrame, names: list[str]) -> np.ndarray:
    return np.hstack([design, *(_columns(table, name) for name in names)])


def _adds(design: np.ndarray, table: pl.DataFrame, names: list[str]) -> bool:
    """Whether every column of ``names`` is independent of ``design`` [rows, columns]."""
    if any(table[_inner(name)].n_unique() < 2 for name in names):
        return False
    wider = np.unique(_extended(design, table, names), axis=0)
    rank = int(np.linalg.matrix_rank(wider))
    return rank == wider.shape[1]
