import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from medsae.statistics import (
    clustered_share_interval,
    cohen_kappa,
    mcnemar_exact,
    wilson_interval,
)


def test_kappa_of_a_worked_example():
    # p_o = 0.7, p_e = 0.5·0.6 + 0.5·0.4 = 0.5
    assert cohen_kappa([[20, 5], [10, 15]]) == pytest.approx(0.4)


def test_kappa_equals_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 3, (2, 40))
        assert cohen_kappa(confusion_matrix(a, b)) == pytest.approx(cohen_kappa_score(a, b))


def test_kappa_of_many_tables_at_once():
    tables = np.random.default_rng(1).integers(1, 9, (5, 2, 2))
    np.testing.assert_allclose(cohen_kappa(tables), [cohen_kappa(table) for table in tables])


def test_kappa_is_undefined_when_chance_explains_all():
    assert np.isnan(cohen_kappa([[7, 0], [0, 0]]))
    assert np.isnan(cohen_kappa([[0, 0], [0, 0]]))


@given(st.integers(1, 200), st.data())
def test_wilson_bounds_are_where_the_score_test_stops_rejecting(n, data):
    hits = data.draw(st.integers(0, n))
    low, high = wilson_interval(hits, n)
    z = norm.ppf(0.975)

    def score(share):
        return (hits / n - share) ** 2 - z**2 * share * (1 - share) / n

    if 0 < hits < n:
        assert low == pytest.approx(brentq(score, 0, hits / n), abs=1e-9)
        assert high == pytest.approx(brentq(score, hits / n, 1), abs=1e-9)
    assert 0 <= low <= hits / n <= high <= 1


def test_wilson_of_nothing_is_undefined():
    assert np.isnan(wilson_interval(0, 0)).all()


def test_mcnemar_of_a_worked_example():
    # 1 and 5 discordant: 2 · (1 + 6) / 2⁶
    assert mcnemar_exact(1, 5) == pytest.approx(14 / 64)
    assert mcnemar_exact(5, 1) == pytest.approx(14 / 64)
    assert mcnemar_exact(3, 3) == 1.0
    assert mcnemar_exact(0, 0) == 1.0


def test_a_share_of_many_lone_units_has_wilsons_interval():
    """Clusters of one unit, so many that Student's t is the normal."""
    n, hits = 100_000, 30_000
    error = np.sqrt(0.3 * 0.7 / n)
    found = clustered_share_interval(0.3, error, n)
    np.testing.assert_allclose(found, wilson_interval(hits, n), rtol=1e-5)


def test_a_share_of_clusters_is_less_sure_than_one_of_lone_units():
    low, high = clustered_share_interval(0.5, 0.1, 20)
    lone_low, lone_high = wilson_interval(12.5, 25)  # se² = 0.25 / 25
    assert low < lone_low and high > lone_high
    assert np.isnan(clustered_share_interval(0.5, 0.1, 1)).all()
    # whatever else moves it: where all units agree there are as many as clusters
    assert clustered_share_interval(1.0, 0.0, 10) == clustered_share_interval(1.0, 0.1, 10)
    assert clustered_share_interval(1.0, 0.0, 10)[1] == 1.0
