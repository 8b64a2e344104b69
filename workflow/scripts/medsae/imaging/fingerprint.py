"""Retrieval by fingerprint: slices that share a query's strongest features.

A query is a slice; its fingerprint, its k largest features (those active on every slice are
dropped). Candidates are ranked by the cosine on these k columns alone; of each scan the best
slice counts. Baselines: the cosine of all features, of the dense embedding, random order.

Published quality: mean dense cosine of the first five results, the query's own scan allowed.
It says how well features imitate the embedding, whatever the embedding knows, so beside it
and without the query's patient: P@1 and P@5 on modality, plane and organs (Jaccard of at
least one half), nDCG@10 with the Jaccard of the organs as gain. Organs are compared on the
structures that the masks of both scans could show; candidates without any in common with the
query are passed over, since nothing is known of them. Best possible order: one slice per scan,
as in the results.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array

from medsae.imaging import columns as col
from medsae.imaging.concepts import ORGAN, concepts_of
from medsae.imaging.result_columns import FINGERPRINT
from medsae.io import progress
from medsae.statistics import cluster_mean, codes_of, ndcg_at, stream

KS = (1, 2, 3, 5, 10, 20, 50, 100)
N_QUERIES = 1000
N_RESULTS = 5
NDCG_K = 10
ALIKE = 0.5
"""Jaccard of two slices' organs from which they count as alike."""

FINGERPRINT_METHOD, ALL_FEATURES, DENSE, RANDOM = "fingerprint", "all features", "dense", "random"
BLOCK = 128


def without_constant(features: csr_array) -> csr_array:
    """Drop (zero out) the features that are active on every row."""
    active = np.bincount(features.indices, minlength=features.shape[1])
    keep = active < features.shape[0]
    entries = keep[features.indices]
    row = np.repeat(np.arange(features.shape[0]), np.diff(features.indptr))[entries]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=features.shape[0]))])
    return csr_array(
        (features.data[entries], features.indices[entries], indptr), shape=features.shape
    )


def largest(features: csr_array, k: int) -> csr_array:
    """Keep the ``k`` largest entries of each row; ties go to the lower column."""
    row = np.repeat(np.arange(features.shape[0]), np.diff(features.indptr))
    order = np.lexsort((features.indices, -features.data, row))
    place = np.arange(features.nnz) - features.indptr[:-1][row]
    kept = order[place < k]
    indptr = np.concatenate([[0], np.cumsum(np.minimum(np.diff(features.indptr), k))])
    return csr_array((features.data[kept], features.indices[kept], indptr), shape=features.shape)


def fingerprint_cosine(queries: csr_array, candidates: csr_array) -> NDArray[np.float64]:
    """Cosine [q, n] on each query's own columns only; 0 where either has nothing there."""
    marks = csr_array((np.ones_like(queries.data), queries.indices, queries.indptr), queries.shape)
    product = (queries @ candidates.T).toarray().astype(np.float64)
    squares = (marks @ candidates.multiply(candidates).T.tocsr()).toarray().astype(np.float64)
    own = np.sqrt(np.asarray(queries.multiply(queries).sum(1), np.float64).ravel())
    length = np.sqrt(np.maximum(squares, 0)) * own[:, None]
    return np.divide(product, length, out=np.zeros_like(product), where=length > 1e-12)


def best_per_group(
    similarity: NDArray[np.floating], group: NDArray[np.integer], n_results: int
) -> NDArray[np.int64]:
    """Columns [q, m] of the best candidate of each of the best groups, best first.

    ``similarity`` [q, n] with −inf for candidates that are excluded; ``group`` [n]. m is the
    smaller of ``n_results`` and the number of groups; −1 where only excluded ones are left.
    Ties go to the earlier candidate and the lower group.
    """
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    best = np.stack([part[similarity[:, part].argmax(axis=1)] for part in parts], axis=1)
    value = np.take_along_axis(similarity, best, axis=1)
    leading = np.argsort(-value, axis=1, kind="stable")[:, :n_results]
    columns = np.take_along_axis(best, leading, axis=1)
    excluded = ~np.isfinite(np.take_along_axis(value, leading, axis=1))
    return np.where(excluded, -1, columns)


def fingerprint_table(
    features: csr_array,
    dense: NDArray[np.float32],
    slices: pl.DataFrame,
    ks: Sequence[int],
    seed: int,
    n_queries: int = N_QUERIES,
    queried: NDArray[np.bool_] | None = None,
) -> pl.DataFrame:
    """``fingerprint.csv``: one row per query, method and k.

    ``features`` [n, L], ``dense`` [n, d] and ``slices`` hold the rows that are searched, from
    which queries are drawn; with ``queried`` [n], from these. ``results``: slice keys of the
    first five, the query's patient excluded.
    """
    features = without_constant(features)
    unit = dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)
    scan = codes_of(slices[col.SCAN])
    patient = codes_of(slices[col.PATIENT_ID])
    rng = stream(seed, "fingerprint queries")
    n = slices.height
    asked = np.arange(n) if queried is None else np.flatnonzero(queried)
    queries = np.sort(rng.choice(asked, min(len(asked), n_queries), replace=False))
    judge = _Judge(slices, scan)
    keys = slices[col.SLICE_KEY].to_numpy()
    rows: list[dict[str, Any]] = []
    blocks = [queries[i : i + BLOCK] for i in range(0, len(queries), BLOCK)]
    for block in progress(blocks, "queries"):
        dense_cosine = (unit[block] @ unit.T).astype(np.float64)
        itself = np.arange(n)[None, :] == block[:, None]
        same = patient[None, :] == patient[block][:, None]
        for method, k, similarity in _methods(features, dense_cosine, block, ks, rng):
            anyone = best_per_group(np.where(itself, -np.inf, similarity), scan, N_RESULTS)
            others = best_per_group(np.where(same, -np.inf, similarity), scan, NDCG_K)
            measures = {
                "quality_published": _mean_cosine(dense_cosine, anyone),
                "quality": _mean_cosine(dense_cosine, others[:, :N_RESULTS]),
                **judge.attributes_of(block, others),
                **judge.organs_of(block, similarity, same),
                "n_candidates": (~same).sum(1),
            }
            for i, query in enumerate(block):
                found = others[i, :N_RESULTS]
                rows.append(
                    {
                        "slice_key": keys[query],
                        "patient_id": str(slices[col.PATIENT_ID][int(query)]),
                        "method": method,
                        "k": k,
                        **{name: float(values[i]) for name, values in measures.items()},
                        "results": ";".join(keys[found[found >= 0]]),
                    }
                )
    table = pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col("k").cast(pl.Int64))
    return table.select(FINGERPRINT).fill_nan(None)


def _methods(
    features: csr_array,
    dense_cosine: NDArray[np.float64],
    block: NDArray[np.integer],
    ks: Sequence[int],
    rng: np.random.Generator,
) -> Iterator[tuple[str, int | None, NDArray[np.float64]]]:
    mine = features[block]
    for k in ks:
        yield FINGERPRINT_METHOD, k, fingerprint_cosine(largest(mine, k), features)
    lengths = np.sqrt(np.asarray(features.multiply(features).sum(1), np.float64).ravel())
    product = (mine @ features.T).toarray() / np.maximum(lengths, 1e-12)[None, :]
    yield ALL_FEATURES, None, product
    yield DENSE, None, dense_cosine
    yield RANDOM, None, rng.random(dense_cosine.shape)


def _mean_cosine(cosine: NDArray[np.float64], results: NDArray[np.int64]) -> NDArray[np.float64]:
    values = np.take_along_axis(cosine, np.maximum(results, 0), axis=1)
    return _mean_over(values, results >= 0)


def _mean_over(values: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.where(valid, values, 0).sum(1) / valid.sum(1)


class _Judge:
    """Relevance of results by their labels; what labels do not say is not judged."""

    def __init__(self, slices: pl.DataFrame, scan: NDArray[np.integer]) -> None:
        organs = concepts_of(slices).of_family(ORGAN)
        self._shown = organs.present.astype(np.float32)
        self._known = organs.known.astype(np.float32)
        self._scan = scan
        self._attributes = {name: codes_of(slices[name]) for name in (col.MODALITY, col.PLANE)}

    def attributes_of(
        self, queries: NDArray[np.integer], results: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """P@1 and P@5 of ``results`` [q, m] on modality and plane."""
        valid, found = np.greater_equal(results, 0), np.maximum(results, 0)
        out: dict[str, NDArray[np.float64]] = {}
        for name, codes in self._attributes.items():
            hit = np.equal(codes[found], codes[queries][:, None])
            out |= _precisions(hit, valid, name)
        return out

    def organs_of(
        self,
        queries: NDArray[np.integer],
        similarity: NDArray[np.float64],
        same: NDArray[np.bool_],
    ) -> dict[str, NDArray[np.float64]]:
        """P@1, P@5 and nDCG@10 on organs of the order of ``similarity`` [q, n]."""
        alike = np.where(same, -np.inf, self._alike(queries))
        results = best_per_group(
            np.where(np.isfinite(alike), similarity, -np.inf), self._scan, NDCG_K
        )
        ideal = best_per_group(alike, self._scan, NDCG_K)
        gains, best = (_gathered(alike, order) for order in (results, ideal))
        out = _precisions(gains >= ALIKE, results >= 0, "organs")
        return out | {f"ndcg_at_{NDCG_K}_organs": ndcg_at(gains, best, NDCG_K)}

    def _alike(self, queries: NDArray[np.integer]) -> NDArray[np.float64]:
        """Jaccard [q, n] of the organs known of both; −inf where nothing is."""
        both = self._shown[queries] @ self._shown.T
        either = self._shown[queries] @ self._known.T + self._known[queries] @ self._shown.T - both
        compared = self._known[queries] @ self._known.T > 0
        jaccard = np.where(either > 0, both / np.maximum(either, 1), 1.0)
        return np.where(compared, jaccard, -np.inf)


def _gathered(values: NDArray[np.float64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
    """``values`` [q, n] at ``columns`` [q, m]; 0 where there is none."""
    found = np.take_along_axis(values, np.maximum(columns, 0), axis=1)
    return np.where(columns >= 0, found, 0.0)


def _precisions(
    hit: NDArray[np.bool_], valid: NDArray[np.bool_], name: str
) -> dict[str, NDArray[np.float64]]:
    """P@1 and P@5, of as many results as there are; NaN where there are none."""
    out = {}
    for k in (1, N_RESULTS):
        share = (hit & valid)[:, :k].sum(1) / np.maximum(valid[:, :k].sum(1), 1)
        out[f"p_at_{k}_{name}"] = np.where(valid.any(1), share, np.nan)
    return out


MEASURES = tuple(name for name in FINGERPRINT if name.startswith(("quality", "p_at", "ndcg")))


def fingerprint_summary(table: pl.DataFrame, n_bootstrap: int, seed: int) -> pl.DataFrame:
    """Mean of every measure per method and k with 95% intervals over the queries' patients.

    Long: method, k, measure, mean, mean_low, mean_high, n_queries, n_patients.
    """
    rows = []
    for part in table.partition_by("method", "k", maintain_order=True):
        method, k = part["method"][0], part["k"][0]
        for measure in MEASURES:
            judged = part.filter(pl.col(measure).is_not_null())
            if judged.is_empty():
                continue
            rng = stream(seed, "fingerprint", method, k, measure)
            mean, low, high = cluster_mean(
                judged[measure].to_numpy(), codes_of(judged["patient_id"]), n_bootstrap, rng
            )
            rows.append(
                {
                    "method": method,
                    "k": k,
                    "measure": measure,
                    "mean": mean,
                    "mean_low": low,
                    "mean_high": high,
                    "n_queries": judged.height,
                    "n_patients": judged["patient_id"].n_unique(),
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None)
