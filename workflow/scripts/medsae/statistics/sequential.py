"""Monte-Carlo p-values that spend permutations where they are needed.

Besag and Clifford (1991, Biometrika 78): permute until a test's observed value was reached
``HITS`` times, at the l-th permutation: p = HITS / l. A test still short of that after n
permutations has p = (1 + times reached) / (1 + n). Under the null hypothesis P(p ≤ x) ≤ x for
either, whatever n is. Most tests end after a few hundred permutations, so the few that are
promising can have so many that a correction over all tests leaves them a chance.
"""

import math

import numpy as np
from numpy.typing import NDArray

HITS = 100
"""Times an observed value is reached before a test ends: a relative error of p of a tenth."""

MAX_PERMUTATIONS = 200_000
"""Permutations that no test exceeds on its way to a small q."""


def permutations_needed(n_tests: int, alpha: float, at_least: int) -> int:
    """Permutations with which a single one of ``n_tests`` can have q ≤ ``alpha``.

    Benjamini and Hochberg's q of one test at the floor 1 / (1 + n) is n_tests / (1 + n).
    Between ``at_least`` and the larger of that and `MAX_PERMUTATIONS`.
    """
    wanted = math.ceil(n_tests / alpha)
    return max(at_least, min(wanted, MAX_PERMUTATIONS))


class SequentialPvalues:
    """The state of ``n_tests`` tests under the same permutations, ``max_permutations`` at most."""

    def __init__(self, n_tests: int, max_permutations: int) -> None:
        self._reached = np.zeros(n_tests, dtype=np.int64)
        self._made = np.zeros(n_tests, dtype=np.int64)
        self._max = max_permutations
        self.open = np.arange(n_tests)
        """Tests [m] that need more permutations."""

    def update(self, reached: NDArray[np.bool_]) -> None:
        """Take in whether the ``open`` tests were reached by each of b permutations: [m, b]."""
        total = self._reached[self.open, None] + np.cumsum(reached, axis=1)
        ended = total[:, -1] >= HITS
        # the permutation at which the last hit needed came
        last = np.where(ended, (total < HITS).sum(1), reached.shape[1] - 1)
        self._reached[self.open] = total[np.arange(len(total)), last]
        self._made[self.open] += last + 1
        self.open = self.open[~ended & (self._made[self.open] < self._max)]

    @property
    def pvalues(self) -> NDArray[np.float64]:
        """p [n_tests]; 1 for a test that saw no permutation."""
        ended = (self._reached >= HITS) & (self._made > 0)
        plain = (1 + self._reached) / (1 + self._made)
        return np.where(ended, self._reached / np.maximum(self._made, 1), plain)

    @property
    def permutations(self) -> NDArray[np.int64]:
        """Permutations [n_tests] that each test took."""
        return self._made
