"""Residuals are standard normal where the model holds, and are not where it does not."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import kstest, norm

from medsae.mixed_effects import bridge
from medsae.mixed_effects.diagnostics import (
    DIAGNOSTICS,
    MAX_POINTS,
    RESIDUAL,
    diagnostic_rows,
    distance_from_normal,
    normal_quantiles,
)

pytest.importorskip("rpy2")

ABOUT = {"response": "y", "specification": "planned"}
N_LEMMAS, PER_LEMMA = 40, 30


def planted(engine):
    """y of the engine's own family with a random intercept per lemma."""
    rng = np.random.default_rng(2)
    lemma = np.repeat(np.arange(N_LEMMAS), PER_LEMMA)
    x = rng.integers(0, 2, len(lemma))
    linear = 0.3 + 0.4 * x + rng.normal(0, 0.3, N_LEMMAS)[lemma]
    if engine == "lmer":
        y = rng.normal(linear, 0.5)
    elif engine == "beta":
        mean = 1 / (1 + np.exp(-linear))
        y = rng.beta(12 * mean, 12 * (1 - mean))
    else:
        y = rng.gamma(2.5, np.exp(linear) / 2.5)
    return pl.DataFrame({"y": y, "x": x.astype(float), "lemma": [f"l{i}" for i in lemma]})


@pytest.mark.parametrize("engine", ["lmer", "beta", "gamma"])
def test_residuals_of_a_model_that_holds_are_standard_normal(engine):
    fit = bridge.fit(planted(engine), "y ~ x + (1 | lemma)", engine)
    assert fit.converged is True and fit.singular is False
    residuals = fit.residuals["residual"].to_numpy()
    assert len(residuals) == N_LEMMAS * PER_LEMMA
    # conditional on estimated random effects, so a little closer than independent draws
    assert kstest(residuals, "norm").pvalue > 0.01
    assert residuals.std() == pytest.approx(1, abs=0.06)
    assert fit.random_effects["group"].unique().to_list() == ["lemma"]
    assert fit.random_effects["value"].std() == pytest.approx(0.3, abs=0.1)


def test_residuals_of_a_wrong_family_are_not():
    skewed = planted("gamma").with_columns(pl.col("y") ** 2)
    wrong = bridge.fit(skewed, "y ~ x + (1 | lemma)", "lmer")
    right = bridge.fit(planted("gamma"), "y ~ x + (1 | lemma)", "gamma")
    assert distance_from_normal(wrong.residuals["residual"]) > 0.1
    assert distance_from_normal(right.residuals["residual"]) < 0.05


def test_slopes_are_random_effects_of_their_own():
    fit = bridge.fit(planted("lmer"), "y ~ x + (1 + x | lemma)", "lmer")
    assert set(fit.random_effects["group"]) == {"lemma", "lemma: x"}


def test_rows_are_thinned_but_keep_their_quantiles():
    fit = bridge.fit(planted("lmer"), "y ~ x + (1 | lemma)", "lmer")
    rows = diagnostic_rows(ABOUT, fit, seed=1)
    assert rows.columns == list(DIAGNOSTICS)
    residuals = rows.filter(pl.col("group") == RESIDUAL)
    assert residuals.height == MAX_POINTS
    every = fit.residuals["residual"].to_numpy()
    expected = dict(zip(every.tolist(), normal_quantiles(every).tolist(), strict=True))
    for value, quantile in residuals.select("value", "quantile").iter_rows():
        assert quantile == expected[value]
    effects = rows.filter(pl.col("group") == "lemma")
    assert effects.height == N_LEMMAS
    assert effects["value"].std() == pytest.approx(1)
    assert rows.equals(diagnostic_rows(ABOUT, fit, seed=1))


def test_nothing_fitted_gives_no_rows():
    fit = bridge.not_estimable("why")
    rows = diagnostic_rows(ABOUT, fit, seed=1)
    assert rows.is_empty() and rows.columns == list(DIAGNOSTICS)
    assert distance_from_normal(fit.residuals["residual"]) is None


def test_distance_equals_scipy():
    values = np.random.default_rng(0).normal(0.2, 1.3, 200)
    expected = kstest(values, "norm").statistic
    assert distance_from_normal(pl.Series(values)) == pytest.approx(expected)
    assert normal_quantiles(np.array([3.0, 1.0]))[1] == pytest.approx(norm.ppf(0.25))
