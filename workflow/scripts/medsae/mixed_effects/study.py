"""The mixed-effects models of the study: fitted, gathered, corrected.

Planned tests are over terms (``medsae.mixed_effects.aggregate``; ``m``: language model):

    Δ overlap           ~ m + layer + sae + (1 | lemma) + (1 | lemma : m)
    rarefied entropy    ~ polysemy * m + layer + sae + (1 | lemma) + (1 | lemma : m)
    ΔCE contrasts       ~ log(activation) + m + layer + sae + (1 | lemma) + (1 | lemma : m)

Their p and intervals are cluster-robust over terms: Δ of random weights spreads a quarter as much
as Δ of a trained model, which one residual variance cannot say. A model is compared with
the same network with random weights or, without it, with the first model of random weights; trained
models are compared with each other by what each is above its own: (A − A₀) − (B − B₀). Layers are
compared within their model. A layer of a model with fewer than three terms takes no part.

Δ overlap is that of all pairs of a term. Unaggregated, the formulas over a sample of the pairs, and
over occurrences, whose coefficients are kept but not tested:

    jaccard     ~ pair_type * m + (1 + pair_type | lemma) + (1 | doc_a) + (1 | doc_b)
    asinh(ΔCE)  ~ linked * on_sense + log(activation) + m + (1 | lemma) + (1 | latent) + (1 | doc)

There a term that is peculiar to one model, or a latent to one sense, counts as many times as it
has rows. In simulated studies without any effect (``tests/mixed_effects/test_null.py``) the first
finds at p < .05 that models differ in 10 of 30, the second that linked latents do in 14 of 100; the
planned tests find either in .04 to .06 of 500.

Published: y ~ polysemy + context + layer + model + (1 | lemma) [+ (1 | doc)] by glmmTMB, beta
for entropy and overlap, gamma for the positive ΔCE. Values of 0 and 1, which a beta
distribution has not, are drawn in by (y (n − 1) + ½) / n (Smithson and Verkuilen 2006).

The false discovery rate (Benjamini and Hochberg) is controlled over the planned contrasts of
the planned models, and apart from them over those of the published ones; intercepts (unless the
response is itself a contrast) and covariates are not tests.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from types import MappingProxyType

import numpy as np
import polars as pl

from medsae.io import progress
from medsae.mixed_effects.aggregate import lemma_ablations, lemma_entropies, lemma_overlaps
from medsae.mixed_effects.bridge import COEFFICIENTS, Fit, difference_term, fit, not_estimable
from medsae.mixed_effects.data import LABELS, controls_first, sample_rows
from medsae.mixed_effects.diagnostics import (
    DIAGNOSTICS,
    diagnostic_rows,
    distance_from_normal,
)
from medsae.mixed_effects.formulas import INTERCEPT, Formula, build_formula
from medsae.mixed_effects.specifications import (
    PLANNED,
    PUBLISHED,
    SPECIFICATIONS,
    UNAGGREGATED,
    Specification,
)
from medsae.statistics import benjamini_hochberg

ENGINES = {"lm": "lm", "lmer": "lmer", "beta": "glmmTMB beta(logit)", "gamma": "glmmTMB gamma(log)"}

IDENTITY = {"response": pl.String, "specification": pl.String, "model": pl.String}

FITS = {
    **IDENTITY,
    "formula": pl.String,
    "dropped": pl.String,
    "note": pl.String,
    "n": pl.Int64,
    "n_available": pl.Int64,
    "converged": pl.Boolean,
    "singular": pl.Boolean,
    "residual_distance": pl.Float64,
    "status": pl.String,
    "messages": pl.String,
    "reason": pl.String,
}
"""``model`` is the kind of model; ``dropped``: what the data cannot tell of the formula, and why;
``note``: what of it was rewritten; ``residual_distance``: Kolmogorov–Smirnov distance of its
quantile residuals from the normal."""

CONTRASTS = {
    "model": pl.String,
    "response": pl.String,
    "specification": pl.String,
    "term": pl.String,
    "contrast": pl.String,
    "estimate": pl.Float64,
    "conf_low": pl.Float64,
    "conf_high": pl.Float64,
    "pvalue": pl.Float64,
    "qvalue": pl.Float64,
    "status": pl.String,
}
"""``contrast`` says in words what the coefficient ``term`` is."""


@dataclass(frozen=True)
class Results:
    """``coefficients`` and ``models`` (R objects) by metric: jaccard, entropy, delta_ce."""

    coefficients: dict[str, pl.DataFrame]
    models: dict[str, dict[str, Fit]]
    fits: pl.DataFrame
    contrasts: pl.DataFrame
    diagnostics: pl.DataFrame


def fit_study(
    tables: dict[str, pl.DataFrame],
    seed: int,
    random_models: Collection[str] = (),
    untrained: Mapping[str, str] = MappingProxyType({}),
) -> Results:
    """Fit every specification to ``tables``: overlap, jaccard, entropy, delta_ce (see ``data``).

    In planned tests a model is compared with the one of ``random_models`` that ``untrained`` names
    for it; else with the first of them, or with the first model by name if there is none; and
    trained models with each other, by what each is above that.
    What cannot be estimated is a row with status "not estimable" and the reason; a singular
    fit or one that did not converge keeps its numbers and says so in ``status``.
    """
    tables = {name: controls_first(table, random_models) for name, table in tables.items()}
    coefficients: dict[str, list[pl.DataFrame]] = {spec.metric: [] for spec in SPECIFICATIONS}
    models: dict[str, dict[str, Fit]] = {name: {} for name in coefficients}
    fits, contrasts = [], [pl.DataFrame(schema=CONTRASTS)]
    diagnostics = [pl.DataFrame(schema=DIAGNOSTICS)]
    for spec in progress(SPECIFICATIONS, "Mixed-effects models"):
        available = prepared_rows(spec, tables[spec.table])
        table = sample_rows(available, seed, spec.response, spec.specification)
        formula = build_formula(spec, table)
        # the published coefficients are against the first model, as published
        twins = untrained if spec.specification == PLANNED else {}
        references = _references(formula.data, twins)
        differences = _model_differences(spec, formula, references, random_models)
        if formula.reason:
            result = not_estimable(formula.reason)
        else:
            rows = _in_bounds(spec, formula.data)
            result = fit(
                rows, formula.text, formula.engine, spec.cluster, references, list(differences)
            )
        status = _status(result)
        about = {
            "response": spec.response,
            "specification": spec.specification,
            "model": ENGINES[formula.engine],
        }
        fits.append(_fit_row(about, formula, result, status, table.height, available.height))
        coefficients[spec.metric].append(_coefficient_rows(about, formula, result, status))
        if spec.specification != UNAGGREGATED:
            names = _planned_terms(spec, formula, references)
            names |= {difference_term(*pair): words for pair, words in differences.items()}
            contrasts.append(_contrast_rows(names, about, result, status))
        diagnostics.append(diagnostic_rows(about, result, seed))
        models[spec.metric][f"{spec.response} {spec.specification}"] = result
    return Results(
        {name: pl.concat(parts) for name, parts in coefficients.items()},
        models,
        pl.DataFrame(fits, schema=FITS),
        _with_q(pl.concat(contrasts)),
        pl.concat(diagnostics),
    )


Prepare = Callable[[pl.DataFrame, str], pl.DataFrame]

BY_LEMMA: dict[str, tuple[Prepare, str]] = {
    "jaccard": (lemma_overlaps, "jaccard"),
    "jaccard_at_10": (lemma_overlaps, "jaccard_at_10"),
    "entropy": (lemma_entropies, "rarefied_normalized"),
    "delta_ce": (lemma_ablations, "did"),
    "delta_ce_on_sense": (lemma_ablations, "on_sense"),
}
"""Planned response -> how its rows become one per term, and which measure."""


def prepared_rows(spec: Specification, table: pl.DataFrame) -> pl.DataFrame:
    """The complete rows and the columns that a specification is about."""
    rows = table
    if spec.by_lemma:
        prepare, measure = BY_LEMMA[spec.response]
        rows = prepare(table, measure)
    elif spec.specification == UNAGGREGATED and "pair_type" in spec.interest:
        rows = rows.filter(pl.col("polysemy") == "polysemous")
    elif spec.specification == PUBLISHED and spec.response == "delta_ce":
        rows = rows.filter(pl.col("linked") == "yes", pl.col("delta_ce") > 0)
    return rows.select(sorted(spec.variables)).drop_nulls()


def _in_bounds(spec: Specification, table: pl.DataFrame) -> pl.DataFrame:
    if spec.engine != "beta":
        return table
    inside = (pl.col(spec.left) * (pl.len() - 1) + 0.5) / pl.len()
    return table.with_columns(inside.alias(spec.left))


def _status(result: Fit) -> str:
    if result.reason:
        return "not estimable"
    if not result.converged:
        return "not converged"
    return "singular" if result.singular else "ok"


def _fit_row(
    about: dict[str, str], formula: Formula, result: Fit, status: str, n: int, n_available: int
) -> dict[str, str | int | float | bool | None]:
    return {
        **about,
        "formula": formula.text,
        "dropped": formula.dropped or None,
        "note": formula.note or None,
        "n": n,
        "n_available": n_available,
        "converged": result.converged,
        "singular": result.singular,
        "residual_distance": distance_from_normal(result.residuals["residual"]),
        "status": status,
        "messages": result.messages or None,
        "reason": result.reason or None,
    }


def _coefficient_rows(
    about: dict[str, str], formula: Formula, result: Fit, status: str
) -> pl.DataFrame:
    rows = result.coefficients
    if rows.is_empty():
        rows = pl.DataFrame([dict.fromkeys(COEFFICIENTS)], schema=COEFFICIENTS)
    return rows.with_columns(
        *(pl.lit(value).alias(name) for name, value in about.items()),
        pl.lit(formula.text).alias("formula"),
        pl.lit(status).alias("status"),
        pl.lit(result.reason or None, dtype=pl.String).alias("reason"),
    )


def _contrast_rows(
    names: dict[str, str], about: dict[str, str], result: Fit, status: str
) -> pl.DataFrame:
    """The coefficients that ``names`` names, with what they say."""
    is_planned = pl.col("effect").is_in(["fixed", "difference"]) & pl.col("term").is_in(list(names))
    return (
        result.coefficients.filter(is_planned)
        .with_columns(
            *(pl.lit(value).alias(name) for name, value in about.items()),
            pl.col("term").replace_strict(names, return_dtype=pl.String).alias("contrast"),
            pl.lit(None, dtype=pl.Float64).alias("qvalue"),
            pl.lit(status).alias("status"),
        )
        .rename({"conf.low": "conf_low", "conf.high": "conf_high", "p.value": "pvalue"})
        .select(pl.col(name).cast(dtype) for name, dtype in CONTRASTS.items())
    )


def _planned_terms(
    spec: Specification, formula: Formula, references: Mapping[str, str]
) -> dict[str, str]:
    """R's names of the coefficients that are planned contrasts, and what they say."""
    table = formula.data
    crossed = spec.crossed if formula.crossed else None
    options = {name: _levels(table, name) for name in (*spec.interest, *filter(None, [crossed]))}
    terms: dict[str, str] = {}
    if spec.difference:
        terms |= {term: f"{spec.difference}, {text}" for term, text in formula.layers.items()}
        terms[INTERCEPT] = ", ".join([spec.difference, *(options[crossed][:1] if crossed else [])])
    sets: list[tuple[str, ...]] = [(name,) for name in spec.interest]
    if spec.interaction:
        sets += [spec.interest] if len(spec.interest) > 1 else []
        sets += [(name, crossed) for name in spec.interest if crossed]
    if spec.difference and crossed:
        sets.append((crossed,))
    for variables in sets:
        if not set(variables) & {*spec.planned, *([crossed] if spec.difference else [])}:
            continue
        others = {name: options[name][1:] for name in variables}
        if crossed in others:  # how models of random weights differ is no question of the study
            trained = [level for level in others[crossed] if level not in references.values()]
            others[crossed] = trained
        for chosen in product(*others.values()):
            pairs = list(zip(variables, chosen, strict=True))
            words = [
                LABELS.get((name, level)) or f"{level} − {references[level]}"
                for name, level in pairs
            ]
            if spec.difference:
                words.insert(0, spec.difference)
            elif crossed and crossed not in variables:
                words.append(options[crossed][0])  # of the reference
            terms[":".join(f"{name}{level}" for name, level in pairs)] = ", ".join(words)
    return terms


def _model_differences(
    spec: Specification,
    formula: Formula,
    references: Mapping[str, str],
    random_models: Collection[str],
) -> dict[tuple[str, str], str]:
    """Pairs of coefficients of two trained models, and what their difference says."""
    if not (spec.by_lemma and formula.crossed):
        return {}
    said = {"": spec.difference}  # by what stands before the model in the name of a coefficient
    if spec.interaction:
        levels = [(name, other) for name in spec.interest for other in _levels(formula.data, name)]
        said = {
            f"{name}{level}:": text for name, level in levels if (text := LABELS.get((name, level)))
        }
    trained = sorted(name for name in references if name not in random_models)
    return {
        (
            f"{prefix}model{one}",
            f"{prefix}model{other}",
        ): f"{text}, {_difference(one, other, references)}"
        for one, other in combinations(trained, 2)
        for prefix, text in said.items()
    }


def _difference(one: str, other: str, references: Mapping[str, str]) -> str:
    if references[one] == references[other]:
        return f"{one} − {other}"
    return f"({one} − {references[one]}) − ({other} − {references[other]})"


def _references(table: pl.DataFrame, untrained: Mapping[str, str]) -> dict[str, str]:
    """The model of ``table`` that each but the first is compared with."""
    first, *others = _levels(table, "model") or [""]
    present = {first, *others}
    return {name: untrained[name] if untrained.get(name) in present else first for name in others}


def _levels(table: pl.DataFrame, name: str) -> list[str]:
    """Levels as R has them: an Enum's categories, or the sorted values."""
    column = table[name]
    if isinstance(column.dtype, pl.Enum):
        present = set(column.cast(pl.String))
        return [level for level in column.dtype.categories if level in present]
    return column.unique().sort().to_list()


def _with_q(contrasts: pl.DataFrame) -> pl.DataFrame:
    q = np.full(contrasts.height, np.nan)
    for specification in (PLANNED, PUBLISHED):
        rows = (contrasts["specification"] == specification).to_numpy()
        p = contrasts["pvalue"].fill_null(np.nan).to_numpy()[rows]
        q[rows] = benjamini_hochberg(p)
    return contrasts.with_columns(pl.Series("qvalue", q).fill_nan(None))
