"""Fisher's exact test, one-sided, for many 2 × 2 tables at once.

p = P(X ≥ a) for X hypergeometric. The tail on the far side of the mean is summed term by term
from its largest, p(x + 1) = p(x) (K − x)(n − x) / ((x + 1)(N − K − n + x + 1)), for all tables
together, until what is left is below double precision.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

NEGLIGIBLE = 1e-17


def fisher_greater(
    hits: ArrayLike, total: ArrayLike, other_hits: ArrayLike, n_other: ArrayLike
) -> NDArray[np.float64]:
    """p that hits / total exceeds other_hits / n_other as much by chance; arrays broadcast."""
    a, n, b, m = np.broadcast_arrays(
        *(np.asarray(x, float) for x in (hits, total, other_hits, n_other))
    )
    fires = a + b
    upper = a * (n + m) >= n * fires
    # P(X ≥ a) directly, or 1 − P(X ≤ a − 1), the lower tail as the upper one of its mirror image
    x = np.where(upper, a, n - (a - 1))
    drawn = np.where(upper, fires, n + m - fires)
    tail = _upper_tail(x, n, drawn, n + m)
    return np.clip(np.where(upper, tail, 1 - tail), 0.0, 1.0)


def _upper_tail(x: NDArray, n: NDArray, drawn: NDArray, size: NDArray) -> NDArray[np.float64]:
    possible = (x <= n) & (x <= drawn)
    x = np.minimum(x, np.minimum(n, drawn))
    log_first = _log_choose(n, x) + _log_choose(size - n, drawn - x) - _log_choose(size, drawn)
    term = np.ones_like(x)
    total = np.ones_like(x)
    while (term > NEGLIGIBLE * total).any():
        term = term * (n - x) * (drawn - x) / ((x + 1) * (size - n - drawn + x + 1))
        total = total + term
        x = x + 1
    return np.where(possible, np.exp(log_first) * total, 0.0)


def _log_choose(n: NDArray, k: NDArray) -> NDArray:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
