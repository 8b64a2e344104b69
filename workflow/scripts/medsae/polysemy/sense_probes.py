"""Can a term's senses be read off all latents together? Sparse probes on patients never seen.

L1-penalised logistic regression, one sense against the others, patients kept together in the folds
of a cross-validation; each occurrence is scored by the probe that did not see its patient. Scores
are ranks within a fold, which makes folds comparable whatever their intercepts. With two senses one
probe serves both: the second sense's score is the reverse of the first's, so its AUROC is the same
number and no second finding.

What is tested is therefore the term: the mean AUROC over its senses, in a row of its own without a
sense, counted once. Null: patients' label sequences are permuted and the whole cross-validation is
run again, so that whatever it gains from chance the null gains too. What is promising after
``N_SHUFFLES`` is shuffled on, so that the smallest p attainable leaves a single term a chance among
all; p = (1 + reached) / (1 + shuffles) of the stage where it ended, which never makes P(p ≤ x)
exceed x.

A single area has its null band and no interval. What resampling the scored patients would give
holds the fitted probes; in simulated studies of 30 to 60 patients such 95% intervals covered 80%,
since other patients would also have trained other probes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

from medsae.polysemy.sparse import SenseSample, cap_by_patient, codes_of
from medsae.polysemy.splits import deal_patients
from medsae.statistics import (
    NOT_EXCHANGEABLE,
    auroc,
    percentile_interval,
    permuted_labels,
    precision_at_top,
    pvalue_greater,
    stream,
    weighted_auroc_ap,
)

N_FOLDS = 5

N_SHUFFLES = 99
"""Label shuffles, each a whole cross-validation, behind the null of a term."""

MAX_SHUFFLES = 2_000
"""Shuffles at most, however many terms there are: each is a whole cross-validation."""

PROMISING = 10
"""A term whose area fewer of the first shuffles reach is shuffled on."""

MAX_PROBED = 2_000
"""Occurrences of a term that the probe sees; more are cut by whole patients."""

PENALTY_C = 1.0
PRECISION_K = 10
TIE = 1e-12

FEW_PATIENTS = "too few patients for two folds with both classes"


@dataclass(frozen=True)
class CrossValidation:
    """What one term's probes found; senses without a probe have NaN.

    ``scores`` [S, n], ``area`` [S], ``null`` AUROCs [S, shuffles], ``n_folds`` [S],
    ``n_active_weights`` [S]; ``pvalue`` of the mean area over senses, NaN where no shuffle could
    change a label; ``n_shuffles`` made.
    """

    scores: NDArray[np.float64]
    area: NDArray[np.float64]
    null: NDArray[np.float64]
    n_folds: NDArray[np.int64]
    n_active_weights: NDArray[np.int64]
    pvalue: float
    n_shuffles: int


def sense_probe_rows(
    sample: SenseSample, statistics: dict[str, int], max_shuffles: int = N_SHUFFLES
) -> list[dict[str, Any]]:
    """Rows of sense_probes.csv for one term: of the term, then of each sense."""
    lemma, seed = sample.latents, statistics["seed"]
    base = {"lemma": lemma.lemma, "sense": None, "reason": sample.reason}
    if sample.reason is not None:
        return [base]
    kept = np.flatnonzero(cap_by_patient(lemma, MAX_PROBED, stream(seed, "probed", lemma.lemma)))
    codes = csc_array(lemma.codes[kept])
    # a latent that fires once can only remember
    codes = codes[:, np.flatnonzero(np.diff(codes.indptr) >= 2)].tocsr()
    patient = codes_of(lemma.table["patient_id"][kept])
    label = sample.label[kept]
    rng = stream(seed, "sense probe", lemma.lemma)
    result = cross_validate(codes, label, len(sample.senses), patient, max_shuffles, rng)
    if result is None:
        return [base | {"reason": FEW_PATIENTS}]
    return [base | row for row in _judge(result, sample.senses, label, patient)]


def cross_validate(
    codes: csr_array,
    label: NDArray[np.int8],
    n_senses: int,
    patient: NDArray[np.integer],
    max_shuffles: int,
    rng: np.random.Generator,
) -> CrossValidation | None:
    """Score every occurrence for every sense and run the null; None if no sense has a probe."""
    fold_seed = int(rng.integers(2**31))
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        scores, n_folds = _all_scores(codes, label, n_senses, patient, fold_seed)
        area = _areas(label, scores)
        probed = ~np.isnan(area)
        if not probed.any():
            return None
        null: list[NDArray[np.float64]] = []
        reached, moved = 0, False
        limit = max(N_SHUFFLES, min(max_shuffles, MAX_SHUFFLES))
        for block in permuted_labels(label, patient, limit, rng):
            for labels in block:
                if len(null) >= N_SHUFFLES and (reached >= PROMISING or not moved):
                    break
                if (labels == label).all():
                    again = area
                else:
                    moved = True
                    shuffled, _ = _all_scores(codes, labels, n_senses, patient, fold_seed)
                    again = _areas(labels, shuffled)
                # a shuffle that left too few patients of a class counts as reaching
                reached += not again[probed].mean() < area[probed].mean() - TIE
                null.append(again)
        weights = np.array([_n_active(codes, label == s, fold_seed) for s in range(n_senses)])
    made = len(null)
    pvalue = float(pvalue_greater(reached, made)) if moved else float("nan")
    return CrossValidation(scores, area, np.array(null).T, n_folds, weights, pvalue, made)


def _all_scores(
    codes: csr_array, label: NDArray[np.int8], n_senses: int, patient: NDArray, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores [S, n] and folds [S] of every sense; of two senses one probe serves both."""
    scores = np.full((n_senses, len(label)), np.nan)
    n_folds = np.zeros(n_senses, dtype=np.int64)
    for sense in range(1 if n_senses == 2 else n_senses):
        found = out_of_fold_scores(codes, label == sense, patient, seed)
        if found is not None:
            scores[sense], n_folds[sense] = found
    if n_senses == 2:
        scores[1], n_folds[1] = -scores[0], n_folds[0]
    return scores, n_folds


def _areas(label: NDArray[np.int8], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """AUROC [S] of each sense; NaN for one without scores."""
    return np.array(
        [
            np.nan if np.isnan(own).any() else auroc(label == sense, own)
            for sense, own in enumerate(scores)
        ]
    )


def _n_active(codes: csr_array, positive: NDArray[np.bool_], seed: int) -> int:
    """Latents with a weight in the probe on all patients."""
    if positive.all() or not positive.any():
        return 0
    return int((_probe(seed).fit(codes, positive).coef_ != 0).sum())


def out_of_fold_scores(
    codes: csr_array, positive: NDArray[np.bool_], patient: NDArray[np.integer], seed: int
) -> tuple[NDArray[np.float64], int] | None:
    """Score [n] of each occurrence by a probe that never saw its patient, and the folds used.

    None if the patients do not allow two folds whose training halves hold both classes.
    """
    n_folds = min(N_FOLDS, *(len(np.unique(patient[each])) for each in (positive, ~positive)))
    if n_folds < 2:
        return None
    fold = deal_patients(patient, positive.astype(np.int8), n_folds, np.random.default_rng(seed))
    scores = np.full(len(positive), np.nan)
    for number in range(n_folds):
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if not len(test) or positive[train].all() or not positive[train].any():
            return None
        probe = _probe(seed).fit(codes[train], positive[train])
        scores[test] = rankdata(probe.decision_function(codes[test])) / (len(test) + 1)
    return scores, n_folds


def _probe(seed: int) -> LogisticRegression:
    return LogisticRegression(
        C=PENALTY_C, l1_ratio=1.0, solver="liblinear", random_state=seed, max_iter=1000
    )


def _judge(
    result: CrossValidation,
    senses: tuple[str, ...],
    label: NDArray[np.int8],
    patient: NDArray[np.integer],
) -> list[dict[str, Any]]:
    shared = {"n_patients": int(patient.max()) + 1, "n_shuffles": result.n_shuffles}
    rows: list[dict[str, Any]] = []
    for sense, name in enumerate(senses):
        positive, scores = label == sense, result.scores[sense]
        if np.isnan(result.area[sense]):
            rows.append({"sense": name, "reason": FEW_PATIENTS})
            continue
        ap = float(weighted_auroc_ap(positive, scores)[1][0])
        k = min(PRECISION_K, len(label))
        rows.append(
            {"sense": name, "ap": ap}
            | _area(float(result.area[sense]), result.null[sense])
            | {
                "prevalence": float(positive.mean()),
                "ap_lift": ap / float(positive.mean()),
                "precision_at_k": precision_at_top(positive, scores, k),
                "precision_k": k,
                "n_positive": int(positive.sum()),
                "n_negative": int((~positive).sum()),
                "n_folds": int(result.n_folds[sense]),
                "n_active_weights": int(result.n_active_weights[sense]),
            }
            | shared
        )
    probed = ~np.isnan(result.area)
    tested = not np.isnan(result.pvalue)
    term = (
        {"sense": None, "pvalue": result.pvalue if tested else None}
        | _area(float(result.area[probed].mean()), result.null[probed].mean(0))
        | {"reason": None if tested else NOT_EXCHANGEABLE}
        | shared
    )
    return [term, *rows]


def _area(area: float, null: NDArray) -> dict[str, Any]:
    row: dict[str, Any] = {"auroc": area, "auroc_null": None}
    if len(known := null[~np.isnan(null)]):
        low, high = percentile_interval(known)
        row |= {"auroc_null": float(known.mean())}
        row |= {"auroc_null_low": float(low), "auroc_null_high": float(high)}
    return row
