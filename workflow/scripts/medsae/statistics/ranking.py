"""AUROC by midranks and average precision by steps, as scikit-learn defines them.

AUROC = P(score⁺ > score⁻) + ½ P(score⁺ = score⁻). AP = Σ_t (R_t − R_{t−1}) P_t over the
distinct thresholds t, without interpolation. Weighted by integers they are the statistics
of a resample, which makes a cluster bootstrap one matrix product away.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def auroc(positive: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve; NaN unless both classes are present."""
    return float(weighted_auroc_ap(positive, scores)[0][0])


def weighted_auroc_ap(
    positive: ArrayLike, scores: ArrayLike, weights: NDArray | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUROC [B] and AP [B] of ``scores`` [n] for ``positive`` [n] under ``weights`` [B, n].

    Without weights every row counts once and B = 1.
    """
    truth = np.asarray(positive, dtype=bool)
    values = np.asarray(scores, dtype=np.float64)
    if truth.shape != values.shape or truth.ndim != 1:
        raise ValueError("labels and scores must be vectors of one length")
    if not len(values) or np.isnan(values).any():
        raise ValueError("there must be scores, and none may be NaN")
    if weights is None:
        weights = np.ones((1, len(values)))
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), len(order) - 1)
    sorted_weights = weights[:, order]
    tp = np.cumsum(sorted_weights * truth[order], axis=1)[:, ends]
    fp = np.cumsum(sorted_weights * ~truth[order], axis=1)[:, ends]
    step_tp = np.diff(tp, axis=1, prepend=0)
    step_fp = np.diff(fp, axis=1, prepend=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = (step_fp * (tp - step_tp / 2)).sum(1) / (tp[:, -1] * fp[:, -1])
        precision = np.where(tp + fp > 0, tp / (tp + fp), 0.0)
        ap = (step_tp * precision).sum(1) / tp[:, -1]
    return area, ap


def precision_at_top(positive: ArrayLike, scores: ArrayLike, k: int) -> float:
    """Share of positives among the ``k`` highest ``scores`` [n], k ≤ n.

    Of scores equal to the k-th as many as there is room for are taken at random: the expected
    share is given, so that it does not depend on the order of the rows.
    """
    truth, values = np.asarray(positive, dtype=bool), np.asarray(scores, dtype=np.float64)
    last = np.sort(values)[-k]
    above, tied = values > last, values == last
    return float((truth[above].sum() + (k - above.sum()) * truth[tied].mean()) / k)
