import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

from medsae.statistics import balanced_weights, fit_elastic_net


def problem(seed=0, n=150, d=12):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    noise = rng.normal(size=(n, 3))
    positive = np.stack([x[:, 0] > 0.5, x[:, 1] + x[:, 2] > 1, x[:, 3] > -1], 1)
    return x, positive ^ (noise > 1.5)


def objective(x, positive, weights, w, b):
    sign = np.where(positive, 1, -1)
    loss = (weights * np.logaddexp(0, -sign * (x @ w + b))).sum()
    return loss + 0.5 * np.abs(w).sum() + 0.25 * (w**2).sum()


@pytest.mark.parametrize("sparse", [False, True])
def test_reaches_the_minimum_that_saga_of_scikit_learn_reaches(sparse):
    x, positive = problem()
    x = np.where(x > 0, x, 0) if sparse else x
    matrix = csr_array(x) if sparse else x
    weights = balanced_weights(positive, np.ones_like(positive))
    fits = fit_elastic_net(matrix, positive, weights, tolerance=1e-6, max_iterations=20_000)
    assert fits.converged.all()
    for t in range(3):
        model = LogisticRegression(
            solver="saga", C=1, l1_ratio=0.5, class_weight="balanced", tol=1e-6, max_iter=20_000
        ).fit(matrix, positive[:, t])
        assert fits.coef[:, t] == pytest.approx(model.coef_[0], abs=1e-2)
        assert fits.intercept[t] == pytest.approx(model.intercept_[0], abs=1e-2)
        ours = objective(x, positive[:, t], weights[:, t], fits.coef[:, t], fits.intercept[t])
        theirs = objective(
            x, positive[:, t], weights[:, t], model.coef_[0], float(model.intercept_[0])
        )
        assert ours <= theirs + 1e-4


def test_targets_fitted_together_are_those_fitted_alone():
    x, positive = problem(1)
    used = np.random.default_rng(2).random(positive.shape) < 0.8
    weights = balanced_weights(positive, used)
    together = fit_elastic_net(x, positive, weights, tolerance=1e-7, max_iterations=20_000)
    for t in range(3):
        rows = used[:, t]
        alone = fit_elastic_net(
            x[rows], positive[rows][:, [t]],
            balanced_weights(positive[rows][:, [t]], np.ones((rows.sum(), 1), bool)),
            tolerance=1e-7, max_iterations=20_000,
        )  # fmt: skip
        assert together.coef[:, t] == pytest.approx(alone.coef[:, 0], abs=1e-4)


def test_only_allowed_columns_are_used():
    x, positive = problem(3)
    weights = balanced_weights(positive, np.ones_like(positive))
    allowed = np.zeros((12, 3), bool)
    allowed[:4] = True
    fits = fit_elastic_net(x, positive, weights, allowed=allowed, tolerance=1e-6)
    small = fit_elastic_net(x[:, :4], positive, weights, tolerance=1e-6)
    assert not fits.coef[4:].any()
    assert fits.coef[:4] == pytest.approx(small.coef, abs=1e-3)


def test_one_class_alone_is_an_error():
    x, positive = problem()
    positive[:, 1] = True
    with pytest.raises(ValueError, match="both classes"):
        fit_elastic_net(x, positive, np.ones(positive.shape))


def test_balanced_weights_give_both_classes_half():
    positive = np.array([[True], [False], [False], [False], [True]])
    used = np.array([[True], [True], [True], [True], [False]])
    weights = balanced_weights(positive, used)[:, 0]
    assert weights.tolist() == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3, 0])
