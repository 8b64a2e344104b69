import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from medsae.statistics import fisher_greater


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_equal_to_scipy(n, m, data):
    a, b = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    expected = fisher_exact([[a, n - a], [b, m - b]], "greater").pvalue
    assert fisher_greater(a, n, b, m) == pytest.approx(expected, rel=1e-9, abs=1e-14)


def test_the_lady_tasting_tea():
    # 4 of 4 right by chance: 1 of 70; 3 of 4: 1 + 16 of 70
    np.testing.assert_allclose(fisher_greater([4, 3], 4, [0, 1], 4), [1 / 70, 17 / 70])


def test_many_large_tables():
    rng = np.random.default_rng(0)
    n, m = 6000, 7000
    a, b = rng.integers(0, n, 50), rng.integers(0, m, 50)
    expected = [
        fisher_exact([[x, n - x], [y, m - y]], "greater").pvalue for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(fisher_greater(a, n, b, m), expected, rtol=1e-8, atol=1e-14)
