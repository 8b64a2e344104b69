import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from medsae.statistics import auroc, weighted_auroc_ap

# few distinct scores, so that most are tied
labelled_scores = st.lists(
    st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=40
).filter(lambda rows: len({label for label, _ in rows}) == 2)


@given(labelled_scores)
def test_equal_to_scikit_learn_with_ties(rows):
    labels, scores = map(np.array, zip(*rows, strict=True))
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    precision = weighted_auroc_ap(labels, scores)[1][0]
    assert precision == pytest.approx(average_precision_score(labels, scores))


@given(labelled_scores, st.integers(0, 2**31))
def test_integer_weights_equal_repeated_rows(rows, seed):
    labels, scores = map(np.array, zip(*rows, strict=True))
    weights = np.random.default_rng(seed).integers(1, 4, len(rows))
    area, ap = weighted_auroc_ap(labels, scores, weights[None].astype(float))
    repeated = np.repeat(labels, weights), np.repeat(scores, weights)
    assert area[0] == pytest.approx(roc_auc_score(*repeated))
    assert ap[0] == pytest.approx(average_precision_score(*repeated))


def test_better_scores_give_an_area_above_one_half():
    # the defect to leave behind: an inverted area, 0.149 for a true 0.851
    assert auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == pytest.approx(0.75)
    assert auroc([0, 1], [0.0, 1.0]) == 1.0


def test_one_class_has_no_area():
    assert np.isnan(auroc([1, 1], [0.0, 1.0]))
    assert np.isnan(weighted_auroc_ap([0, 0], [0.0, 1.0])[1]).all()


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        auroc([0, 1], [np.nan, 1.0])
    with pytest.raises(ValueError, match="one length"):
        auroc([0, 1], [1.0])
