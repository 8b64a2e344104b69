"""R behind one function: a table and a formula in, a judged fit out."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medsae.io import UserError, atomic_path

R_SOURCE = Path(__file__).with_name("fit.R")

LIBRARIES = "LD_LIBRARY_PATH"
R_PACKAGES = {
    "lme4": "r-cran-lme4",
    "lmerTest": "r-cran-lmertest",
    "broom.mixed": "r-cran-broom.mixed",
    "glmmTMB": "r-cran-glmmtmb",
    "dplyr": "r-cran-dplyr",
    "clubSandwich": "r-cran-clubsandwich",
}

COEFFICIENTS = {
    "effect": pl.String,
    "group": pl.String,
    "term": pl.String,
    "estimate": pl.Float64,
    "std.error": pl.Float64,
    "statistic": pl.Float64,
    "df": pl.Float64,
    "p.value": pl.Float64,
    "conf.low": pl.Float64,
    "conf.high": pl.Float64,
}

RESIDUALS = {"fitted": pl.Float64, "residual": pl.Float64}
RANDOM_EFFECTS = {"group": pl.String, "value": pl.Float64}

logger = logging.getLogger("medsae")


@dataclass(frozen=True)
class Fit:
    """What R made of a formula; the tables are empty where ``reason`` is not.

    ``residuals``: per row of the data the fitted value and its quantile residual, standard
    normal where the model holds; ``random_effects``: what each level adds.
    """

    coefficients: pl.DataFrame
    converged: bool | None
    singular: bool | None
    messages: str
    reason: str
    residuals: pl.DataFrame
    random_effects: pl.DataFrame
    model: Any  # the R object


def fit(
    table: pl.DataFrame,
    formula: str,
    engine: str,
    cluster: str = "",
    references: Mapping[str, str] | None = None,
    differences: Sequence[tuple[str, str]] = (),
) -> Fit:
    """Fit ``formula`` to ``table`` with ``engine``: lm, lmer, beta (logit) or gamma (log).

    With ``cluster``, a column, errors, p and intervals of an lm or lmer are robust to whatever rows
    of one cluster share and to unequal spread (CR2; Pustejovsky and Tipton 2018).
    ``references``: the level that each further level of the column ``model`` is compared with: the
    first, or one that is compared with the first. Without it, and for other columns, the first.
    ``differences``: pairs of fixed effects whose difference is wanted too, robust as they are: a
    row of effect "difference" and term `difference_term` of the pair. Only with ``cluster``.

    String and Enum columns become factors, an Enum with its categories in their order.
    Raises ``UserError`` when R or one of its packages is missing; data that R cannot fit
    are no exception but a `Fit` with a ``reason``.
    """
    logger.info("Fitting %s to %d rows", formula, table.height)
    robjects = _r()
    pairs = [robjects.StrVector([pair[side] for pair in differences]) for side in (0, 1)]
    data = _data_frame(table, references or {})
    return _fit(robjects.globalenv["fit_model"](data, formula, engine, cluster, *pairs))


def difference_term(plus: str, minus: str) -> str:
    """What the difference of two fixed effects is called among the coefficients."""
    return f"{plus} - {minus}"


def not_estimable(reason: str) -> Fit:
    """The `Fit` of data that need not be shown to R."""
    return _fit(_r().globalenv["not_estimable"](reason))


def save_models(path: str | Path, fits: dict[str, Fit]) -> None:
    """Write the R objects of ``fits`` as one named list (.rds)."""
    models = _r().ListVector({name: each.model for name, each in fits.items()})
    with atomic_path(path) as temporary:
        _r().r["saveRDS"](models, str(temporary))


@cache
def _r() -> Any:
    """rpy2 with the packages there and fit.R read."""
    logging.getLogger("rpy2").setLevel(logging.WARNING)
    before = os.environ.get(LIBRARIES)
    try:
        from rpy2 import robjects
        from rpy2.rinterface_lib import callbacks
    except Exception as error:  # rpy2 raises whatever loading libR raises
        raise UserError(
            f"R cannot be started ({type(error).__name__}); install it: "
            f"apt-get install --yes --no-install-recommends {_apt(R_PACKAGES)}"
        ) from error
    finally:
        # rpy2 puts the system's folders first, where a child process would find another libpython.
        if before is None:
            os.environ.pop(LIBRARIES, None)
        else:
            os.environ[LIBRARIES] = before
    callbacks.consolewrite_print = lambda text: logger.info("R: %s", text.strip())
    callbacks.consolewrite_warnerror = lambda text: logger.info("R: %s", text.strip())
    installed = robjects.r["requireNamespace"]
    missing = [name for name in R_PACKAGES if not installed(name, quietly=True)[0]]
    if missing:
        raise UserError(
            f"R has no package {', '.join(missing)}; install what is missing: "
            f"apt-get install --yes --no-install-recommends {_apt(missing)}"
        )
    # Kept sources would put the working folder and the time into every saved model.
    robjects.r["source"](str(R_SOURCE), **{"keep.source": False})
    return robjects


def _apt(names: Any) -> str:
    return " ".join(["r-base-core", *(R_PACKAGES[name] for name in names)])


def _data_frame(table: pl.DataFrame, references: Mapping[str, str]) -> Any:
    robjects = _r()
    columns = {}
    for column in table:
        if column.dtype.is_numeric():
            columns[column.name] = robjects.FloatVector(column.cast(pl.Float64).to_numpy())
        else:
            present = column.cast(pl.String)
            values = set(present)
            order = column.dtype.categories if isinstance(column.dtype, pl.Enum) else sorted(values)
            levels = [level for level in order if level in values]
            factor = robjects.FactorVector(
                robjects.StrVector(present.to_list()), levels=robjects.StrVector(levels)
            )
            if column.name == "model" and references:
                factor = robjects.r["contrasts<-"](factor, value=_coding(levels, references))
            columns[column.name] = factor
    return robjects.DataFrame(columns)


def _coding(levels: list[str], references: Mapping[str, str]) -> Any:
    """Contrasts by which each level's coefficient is its mean minus that of its reference.

    The reference of a reference is the first level.
    """
    coding = np.eye(len(levels))
    for row, level in enumerate(levels[1:], start=1):
        coding[row, levels.index(references[level])] = 1
    robjects = _r()
    names = robjects.r["list"](robjects.NULL, robjects.StrVector(levels[1:]))
    values = robjects.FloatVector(coding[:, 1:].T.ravel())
    return robjects.r["matrix"](values, nrow=len(levels), dimnames=names)


def _fit(result: Any) -> Fit:
    def flag(name: str) -> bool | None:
        value = result.rx2(name)[0]
        return value if isinstance(value, bool) else None  # NA is not a bool

    return Fit(
        coefficients=_frame(result.rx2("coefficients"), COEFFICIENTS),
        converged=flag("converged"),
        singular=flag("singular"),
        messages=str(result.rx2("messages")[0]),
        reason=str(result.rx2("reason")[0]),
        residuals=_frame(result.rx2("residuals"), RESIDUALS),
        random_effects=_frame(result.rx2("random_effects"), RANDOM_EFFECTS),
        model=result.rx2("model"),
    )


def _frame(table: Any, schema: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
    if not hasattr(table, "colnames"):  # NULL
        return pl.DataFrame(schema=schema)
    columns = {}
    for name, dtype in schema.items():
        values = list(table.rx2(name))
        if dtype == pl.String:
            columns[name] = [value or None for value in values]
        else:
            columns[name] = [value if math.isfinite(value) else None for value in values]
    return pl.DataFrame(columns, schema=schema)
