"""Sense-aware retrieval: does dropping the strongest latents bring the same sense to the top?

A query is one occurrence of a term; candidates are the occurrences of the same term in other
patients; relevant are those of the query's sense. Stage 1 ranks all candidates by the cosine
of their full codes; stage 2 reorders the first k by the cosine of the codes without each
occurrence's ``n_anchor`` largest latents. Metrics: P@1, 3, 5, 10 (of as many candidates as
there are), reciprocal rank, average precision over the whole ranking.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

METRICS = ("P@1", "P@3", "P@5", "P@10", "RR", "AP")
CUTOFFS = (1, 3, 5, 10)


def cosine(codes: csr_array) -> NDArray[np.float64]:
    """Cosine of every pair of rows [n, n]; 0 with an empty row."""
    values = codes.astype(np.float64)
    norms = np.sqrt(np.asarray(values.multiply(values).sum(axis=1)).ravel())
    products = (values @ values.T).toarray()
    products /= np.maximum(norms, 1e-300)[:, None]
    products /= np.maximum(norms, 1e-300)[None, :]
    return products


def dense_cosine(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Cosine of every pair of rows of a dense matrix [n, d]."""
    values = np.asarray(vectors, dtype=np.float64)
    values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-300)
    # rounding makes ties of equal vectors independent of how the product was summed
    return np.round(values @ values.T, 12)


def without_anchors(codes: csr_array, n_anchor: int) -> csr_array:
    """Drop the ``n_anchor`` first (largest) latents of each row."""
    return _keep(codes, _position(codes) >= n_anchor)


def without_random(codes: csr_array, n: int, rng: np.random.Generator) -> csr_array:
    """Drop ``n`` random latents of each row, whatever their size."""
    row = np.repeat(np.arange(codes.shape[0]), np.diff(codes.indptr))
    shuffled = np.lexsort((rng.random(codes.nnz), row))
    place = np.empty(codes.nnz, dtype=np.int64)
    place[shuffled] = _position(codes)
    return _keep(codes, place >= n)


def ranking(similarity: NDArray[np.floating], patient: NDArray[np.integer]) -> NDArray[np.intp]:
    """Candidates of each query, best first [n, n]; those of the query's patient come last.

    Ties keep the order of the rows.
    """
    scores = np.where(patient[:, None] == patient[None, :], -np.inf, similarity)
    return np.argsort(-scores, axis=1, kind="stable")


def rerank(
    order: NDArray[np.intp],
    similarity: NDArray[np.floating],
    k: int,
    n_candidates: NDArray[np.integer],
) -> NDArray[np.intp]:
    """Reorder the first ``k`` candidates of each query by ``similarity`` [n, n]."""
    k = min(k, order.shape[1])
    head = order[:, :k]
    scores = np.take_along_axis(similarity, head, axis=1)
    # places past the candidates hold the query's own patient: they must stay last
    scores = np.where(np.arange(k)[None, :] < n_candidates[:, None], scores, -np.inf)
    moved = np.take_along_axis(head, np.argsort(-scores, axis=1, kind="stable"), axis=1)
    return np.concatenate([moved, order[:, k:]], axis=1)


def candidate_counts(patient: NDArray[np.integer]) -> NDArray[np.int64]:
    """Candidates of each query [n]: occurrences of other patients."""
    return len(patient) - np.bincount(patient)[patient]


def ranking_metrics(
    order: NDArray[np.intp], label: NDArray[np.integer], patient: NDArray[np.integer]
) -> NDArray[np.float64]:
    """``METRICS`` of each query [n, 6]; NaN for a query without a relevant candidate."""
    relevant = (label[order] == label[:, None]) & (patient[order] != patient[:, None])
    hits = np.cumsum(relevant, axis=1)
    found = hits[:, -1].astype(np.float64)
    ranks = np.arange(1, order.shape[1] + 1)
    n_candidates = candidate_counts(patient)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = [
            hits[:, min(cut, order.shape[1]) - 1] / np.minimum(cut, n_candidates) for cut in CUTOFFS
        ]
        columns.append(1.0 / (relevant.argmax(axis=1) + 1))
        columns.append((relevant * hits / ranks).sum(1) / found)
    metrics = np.stack(columns, axis=1)
    metrics[found == 0] = np.nan
    return metrics


def sweep(
    codes: csr_array,
    label: NDArray[np.integer],
    patient: NDArray[np.integer],
    k_sweep: Sequence[int],
    n_anchor_sweep: Sequence[int],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Metrics of stage 1 [n, 6] and of stage 2 for each setting [anchors, ks, n, 6]."""
    order = ranking(cosine(codes), patient)
    n_candidates = candidate_counts(patient)
    reranked = [
        [ranking_metrics(rerank(order, semantic, k, n_candidates), label, patient) for k in k_sweep]
        for n_anchor in n_anchor_sweep
        for semantic in [cosine(without_anchors(codes, n_anchor))]
    ]
    return ranking_metrics(order, label, patient), np.array(reranked)


def _position(codes: csr_array) -> NDArray[np.int64]:
    return np.arange(codes.nnz) - np.repeat(codes.indptr[:-1], np.diff(codes.indptr))


def _keep(codes: csr_array, kept: NDArray[np.bool_]) -> csr_array:
    row = np.repeat(np.arange(codes.shape[0]), np.diff(codes.indptr))[kept]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=codes.shape[0]))])
    return csr_array((codes.data[kept], codes.indices[kept], indptr), shape=codes.shape)
