import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsae.statistics import benjamini_hochberg, holm

pvalue_lists = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def test_benjamini_hochberg_of_a_worked_example():
    # m = 4: 0.01·4/1, 0.02·4/2, 0.03·4/3, 0.5·4/4, running minimum from the right
    np.testing.assert_allclose(benjamini_hochberg([0.5, 0.01, 0.03, 0.02]), [0.5, 0.04, 0.04, 0.04])


def test_holm_of_a_worked_example():
    # 0.01·3, max(0.03, 0.02·2), max(0.04, 0.04·1)
    np.testing.assert_allclose(holm([0.04, 0.01, 0.02]), [0.04, 0.03, 0.04])


@given(pvalue_lists)
def test_q_equals_its_definition(pvalues):
    p = np.array(pvalues)
    m = len(p)
    rank = np.array([(p <= value).sum() for value in p])
    expected = [
        min(1.0, min(p[j] * m / rank[j] for j in range(m) if p[j] >= p[i])) for i in range(m)
    ]
    np.testing.assert_allclose(benjamini_hochberg(p), expected)


@given(pvalue_lists)
def test_holm_lies_between_p_and_bonferroni(pvalues):
    p = np.array(pvalues)
    adjusted = holm(p)
    assert (adjusted >= p - 1e-12).all()
    assert (adjusted <= np.minimum(1, p * len(p)) + 1e-12).all()


@given(pvalue_lists, st.randoms())
def test_order_of_tests_does_not_matter(pvalues, random):
    order = list(range(len(pvalues)))
    random.shuffle(order)
    p = np.array(pvalues)
    for adjust in (benjamini_hochberg, holm):
        np.testing.assert_array_equal(adjust(p)[order], adjust(p[order]))


def test_what_was_not_tested_does_not_count():
    np.testing.assert_allclose(benjamini_hochberg([np.nan, 0.01, 0.02]), [np.nan, 0.02, 0.02])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.02]), [0.02, np.nan, 0.02])


def test_numbers_that_are_not_p_values_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        benjamini_hochberg([0.5, 1.2])
    with pytest.raises(ValueError, match="one-dimensional"):
        holm([[0.5]])
