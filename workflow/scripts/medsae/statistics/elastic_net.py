"""Elastic-net logistic regression for many targets at once.

For each target t, over the rows i with weight s_it > 0,

    min over w, b of  C Σ_i s_i log(1 + exp(−y_i (x_i·w + b))) + ρ ‖w‖₁ + (1 − ρ)/2 ‖w‖²,

y = ±1: the objective of scikit-learn's ``LogisticRegression(solver="saga", C=C, l1_ratio=ρ)``,
strictly convex in w, so that the minimiser does not depend on the method. Here it is the
accelerated proximal gradient (Beck and Teboulle 2009) with adaptive restart (O'Donoghue and
Candès 2015): one product with all targets replaces a pass over the rows for each target.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse
from scipy.special import expit

POWER_STEPS = 30
SAFETY = 1.1
"""The power iteration comes from below; the step must not be too long."""


@dataclass(frozen=True)
class LogisticFits:
    """``coef`` [d, T], ``intercept`` [T], ``converged`` bool [T]."""

    coef: NDArray[np.floating]
    intercept: NDArray[np.floating]
    converged: NDArray[np.bool_]


def balanced_weights(positive: NDArray[np.bool_], used: NDArray[np.bool_]) -> NDArray[np.float64]:
    """n / (2 n_class) for the ``used`` rows of each target [n, T], 0 for the others."""
    n = used.sum(0)
    n_positive = (positive & used).sum(0)
    with np.errstate(divide="ignore"):
        weights = np.where(positive, n / (2 * n_positive), n / (2 * (n - n_positive)))
    return np.where(used, weights, 0.0)


def fit_elastic_net(
    x: NDArray[np.floating] | csr_array,
    positive: NDArray[np.bool_],
    weights: NDArray[np.floating],
    *,
    allowed: NDArray[np.bool_] | None = None,
    c: float = 1.0,
    l1_ratio: float = 0.5,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
) -> LogisticFits:
    """Fit ``positive`` [n, T] on ``x`` [n, d] under row ``weights`` [n, T].

    ``allowed`` [d, T] restricts each target to some columns. Computed in the precision of
    ``x``. A target stops when its largest change falls below ``tolerance`` times its largest
    coefficient. Raises ``ValueError`` if a target lacks a class among its weighted rows.
    """
    dtype = np.dtype(x.dtype)
    sign = np.where(positive, 1, -1).astype(dtype)
    s = np.asarray(weights, dtype=dtype) * dtype.type(c)
    if not (((s > 0) & positive).any(0) & ((s > 0) & ~positive).any(0)).all():
        raise ValueError("each target needs rows of both classes")
    d, n_targets = x.shape[1], positive.shape[1]
    free = np.ones((d, n_targets), dtype) if allowed is None else allowed.astype(dtype)
    step = 1 / (SAFETY * _largest_curvature(x, s, free) / 4 + (1 - l1_ratio)).astype(dtype)
    w, b = np.zeros((d, n_targets), dtype), np.zeros(n_targets, dtype)
    converged = np.zeros(n_targets, dtype=bool)
    live = np.arange(n_targets)
    v, a, momentum = w.copy(), b.copy(), np.ones(n_targets, dtype)
    for _ in range(max_iterations):
        y, rows, h = sign[:, live], s[:, live], step[live]
        residual = -rows * y * expit(-y * (x @ v + a))
        grad = (x.T @ residual) * free[:, live] + (1 - l1_ratio) * v
        new_w = _shrink(v - h * grad, h * l1_ratio)
        new_b = a - h * residual.sum(0)
        change_w, change_b = new_w - w[:, live], new_b - b[live]
        uphill = ((v - new_w) * change_w).sum(0) + (a - new_b) * change_b > 0
        current = np.where(uphill, 1, momentum)
        following = ((1 + np.sqrt(1 + 4 * current**2)) / 2).astype(dtype)
        push = np.where(uphill, 0, (current - 1) / following).astype(dtype)
        w[:, live], b[live] = new_w, new_b
        size = np.maximum(np.abs(new_w).max(0, initial=0), np.abs(new_b))
        moved = np.maximum(np.abs(change_w).max(0, initial=0), np.abs(change_b))
        done = moved <= tolerance * np.maximum(size, 1e-12)
        # a push that was just restarted can stand still by accident
        done &= ~uphill
        converged[live[done]] = True
        keep = ~done
        if not keep.any():
            break
        v = (new_w + push * change_w)[:, keep]
        a = (new_b + push * change_b)[keep]
        live, momentum = live[keep], following[keep]
    return LogisticFits(w, b, converged)


def _shrink(x: NDArray, threshold: NDArray) -> NDArray:
    return np.sign(x) * np.maximum(np.abs(x) - threshold, 0)


def _largest_curvature(x: Any, s: NDArray, free: NDArray) -> NDArray:
    """Largest eigenvalue of [X, 1]ᵀ diag(s_t) [X, 1] of each target, by power iteration."""
    rng = np.random.default_rng(0)
    squares = x.multiply(x) if issparse(x) else x * x
    # starting from the columns' norms finds the leading direction of non-negative data at once
    start = np.sqrt(np.maximum(np.asarray(squares.sum(0)).ravel(), 1e-12))
    vector = (start[:, None] * (1 + 0.1 * rng.random((len(start), s.shape[1])))).astype(x.dtype)
    vector *= free
    last = np.ones(s.shape[1], x.dtype)
    value = np.ones(s.shape[1], x.dtype)
    for _ in range(POWER_STEPS):
        norm = np.sqrt((vector**2).sum(0) + last**2)
        vector, last = vector / norm, last / norm
        product = s * (x @ vector + last)
        vector, last = (x.T @ product) * free, product.sum(0)
        value = np.sqrt((vector**2).sum(0) + last**2)
    return value
