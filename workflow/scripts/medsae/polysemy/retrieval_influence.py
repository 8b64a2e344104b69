"""What each candidate does to each query's metrics: the metrics minus those without it.

A ranking's metrics depend on which patients happen to be candidates as much as on which happen to
ask. With h(q) a query's metric and c(q, i) what candidate i does to it, a patient's part in the
mean is Σ_{q of the patient} (h(q) − θ) + Σ_{i of the patient} Σ_q c(q, i), the latter centred: an
infinitesimal jackknife over both roles (Efron 1982, chapter 6). A bootstrap of queries alone takes
the candidates for given, and one of whole patients puts copies beside themselves, which a nearest
neighbour would find (Abadie and Imbens 2008, Econometrica 76).
"""

import numpy as np
from numpy.typing import NDArray

from medsae.polysemy.retrieval import CUTOFFS, METRICS, candidate_counts


def candidate_influence(
    order: NDArray[np.intp], label: NDArray[np.integer], patient: NDArray[np.integer]
) -> NDArray[np.float64]:
    """``METRICS`` of each query minus those without the candidate at each rank [n, n, 6].

    0 past the candidates, and where the only relevant one would go. A re-ranked order is taken as
    it is: who would come into its head is not ranked again.
    """
    n = len(label)
    queries, ranks = np.arange(n), np.arange(1, n + 1)
    relevant = (label[order] == label[:, None]) & (patient[order] != patient[:, None])
    n_candidates = candidate_counts(patient)
    hits = np.cumsum(relevant, axis=1)
    found = hits[:, -1]
    change = np.zeros((n, n, len(METRICS)))
    for column, cut in enumerate(CUTOFFS):
        change[:, :, column] = _of_precision(relevant, hits, n_candidates, cut)
    first = relevant.argmax(axis=1) + 1
    rest = relevant.copy()
    rest[queries, first - 1] = False
    second = rest.argmax(axis=1) + 1
    moved_up = 1 / np.maximum(np.column_stack([first - 1, second - 1]), 1)
    without = np.where(ranks < first[:, None], moved_up[:, [0]], 1 / first[:, None])
    without = np.where(ranks == first[:, None], moved_up[:, [1]], without)
    change[:, :, METRICS.index("RR")] = 1 / first[:, None] - without
    change[:, :, METRICS.index("AP")] = _of_average_precision(relevant, hits, ranks)
    change[ranks > n_candidates[:, None]] = 0
    change[found < 2] = 0
    return change


def _of_precision(
    relevant: NDArray[np.bool_], hits: NDArray[np.integer], n_candidates: NDArray, cut: int
) -> NDArray[np.float64]:
    queries = np.arange(len(hits))
    before = np.maximum(np.minimum(cut, n_candidates), 1)
    after = np.maximum(np.minimum(cut, n_candidates - 1), 1)
    among_next = hits[queries, np.minimum(after, hits.shape[1] - 1)]  # of the first after + 1
    inside = np.arange(1, hits.shape[1] + 1) <= after[:, None]
    kept = np.where(inside, among_next[:, None] - relevant, hits[queries, after - 1][:, None])
    share: NDArray[np.float64] = hits[queries, before - 1] / before
    return share[:, None] - kept / after[:, None]


def _of_average_precision(
    relevant: NDArray[np.bool_], hits: NDArray[np.integer], ranks: NDArray[np.integer]
) -> NDArray[np.float64]:
    found = np.maximum(hits[:, [-1]], 1)
    precision = relevant * hits / ranks
    earlier = np.cumsum(precision, axis=1) - precision
    one_up = np.maximum(ranks - 1, 1)
    kept, lost = relevant * hits / one_up, relevant * (hits - 1) / one_up
    without_irrelevant = (earlier + _later(kept)) / found
    without_relevant = (earlier + _later(lost)) / np.maximum(found - 1, 1)
    without = np.where(relevant, without_relevant, without_irrelevant)
    return precision.sum(1, keepdims=True) / found - without


def _later(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    return terms.sum(1, keepdims=True) - np.cumsum(terms, axis=1)


def influence_of_patients(
    change: NDArray[np.float64], order: NDArray[np.intp], patient: NDArray[np.integer]
) -> NDArray[np.float64]:
    """``change`` [n, n, m] by rank, summed to what patient b does to patient a's queries [P, P, m].

    ``patient`` [n]: codes 0 … P − 1, ascending. Each row is centred over the other patients:
    that a pool with one candidate less is another pool is no uncertainty.
    """
    by_candidate = np.empty_like(change)
    by_candidate[np.arange(len(order))[:, None], order] = change
    starts = np.flatnonzero(np.diff(patient, prepend=-1))
    between = np.add.reduceat(np.add.reduceat(by_candidate, starts, axis=0), starts, axis=1)
    n_others = max(len(starts) - 1, 1)
    centred: NDArray[np.float64] = between - between.sum(1, keepdims=True) / n_others
    centred[np.diag_indices(len(starts))] = 0
    return centred
