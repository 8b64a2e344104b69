"""Quality of ranked results: precision at k and nDCG at k (Järvelin and Kekäläinen 2002)."""

import numpy as np
from numpy.typing import NDArray


def precision_at(relevant: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Share of relevant ones [q] among the first ``k`` results [q, m], or all m if fewer."""
    return relevant[:, : min(k, relevant.shape[1])].mean(axis=1)


def ndcg_at(
    gains: NDArray[np.floating], candidates: NDArray[np.floating], k: int
) -> NDArray[np.float64]:
    """nDCG@k [q] of results with ``gains`` [q, m], best first.

    DCG = Σ_{i ≤ k} g_i / log₂(i + 1), over that of the best order of the gains of all
    ``candidates`` [q, n]. NaN where no candidate has a gain.
    """
    k = min(k, gains.shape[1], candidates.shape[1])
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = -np.sort(-candidates, axis=1)[:, :k] @ discount
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(ideal > 0, gains[:, :k] @ discount / ideal, np.nan)
