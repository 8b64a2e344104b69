"""Can a sense be read off all latents together? A sparse probe on patients it never saw.

L1-penalised logistic regression, patients kept together in the folds of a cross-validation;
each occurrence is scored by the probe that did not see its patient. Scores are ranks within
a fold, which makes folds comparable whatever their intercepts. With two senses one probe
serves both: the second sense's score is the reverse of the first's.

Intervals resample patients. Null: patients' label sequences are permuted and the whole
cross-validation is run again, so that whatever it gains from chance the null gains too. What is
promising after ``N_SHUFFLES`` is shuffled on, so that the smallest p attainable leaves a single
term a chance among all; p = (1 + reached) / (1 + shuffles) of the stage where it ended, which
never makes P(p ≤ x) exceed x.
"""

from dataclasses import dataclass, replace
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
    auroc,
    cluster_weights,
    percentile_interval,
    permuted_labels,
    pvalue_greater,
    stream,
    weighted_auroc_ap,
)

N_FOLDS = 5

N_SHUFFLES = 99
"""Label shuffles, each a whole cross-validation, behind the null of a probe."""

MAX_SHUFFLES = 2_000
"""Shuffles at most, however many terms there are: each is a whole cross-validation."""

PROMISING = 10
"""A probe whose area fewer of the first shuffles reach is shuffled on."""

MAX_PROBED = 2_000
"""Occurrences of a term that the probe sees; more are cut by whole patients."""

PENALTY_C = 1.0
TIE = 1e-12


@dataclass(frozen=True)
class CrossValidation:
    """Scores [n] for a sense, folds used, null AUROCs, p, shuffles, latents with a weight."""

    scores: NDArray[np.float64]
    n_folds: int
    null: NDArray[np.float64]
    pvalue: float
    n_shuffles: int
    n_active_weights: int


def sense_probe_rows(
    sample: SenseSample, statistics: dict[str, int], max_shuffles: int = N_SHUFFLES
) -> list[dict[str, Any]]:
    """Rows of sense_probes.csv for one term."""
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
    rows = []
    mirrored: CrossValidation | None = None
    for sense, name in enumerate(sample.senses):
        rng = stream(seed, "sense probe", lemma.lemma, name)
        result = mirrored or cross_validate(codes, label, sense, patient, max_shuffles, rng)
        if result is None:
            reason = "too few patients for two folds with both classes"
            rows.append(base | {"sense": name, "reason": reason})
            continue
        rows.append(
            base | {"sense": name} | _judge(result, label == sense, patient, statistics, rng)
        )
        if len(sample.senses) == 2:
            mirrored = replace(result, scores=-result.scores)
    return rows


def cross_validate(
    codes: csr_array,
    label: NDArray[np.int8],
    sense: int,
    patient: NDArray[np.integer],
    max_shuffles: int,
    rng: np.random.Generator,
) -> CrossValidation | None:
    """Score every occurrence and run the null; None if two folds cannot hold both classes."""
    fold_seed = int(rng.integers(2**31))
    positive = label == sense
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        scored = out_of_fold_scores(codes, positive, patient, fold_seed)
        if scored is None:
            return None
        area = auroc(positive, scored[0])
        null, made, reached = [], 0, 0
        limit = max(N_SHUFFLES, min(max_shuffles, MAX_SHUFFLES))
        for block in permuted_labels(label, patient, limit, rng):
            if made >= N_SHUFFLES and reached >= PROMISING:
                break
            for labels in block == sense:
                if made >= N_SHUFFLES and reached >= PROMISING:
                    break
                again = out_of_fold_scores(codes, labels, patient, fold_seed)
                made += 1
                # a shuffle that left too few patients of a class counts as reaching
                reached += again is None or not auroc(labels, again[0]) < area - TIE
                if again is not None:
                    null.append(auroc(labels, again[0]))
        weights = _probe(fold_seed).fit(codes, positive).coef_
    pvalue = float(pvalue_greater(reached, made))
    return CrossValidation(*scored, np.array(null), pvalue, made, int((weights != 0).sum()))


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
    positive: NDArray[np.bool_],
    patient: NDArray[np.integer],
    statistics: dict[str, int],
    rng: np.random.Generator,
) -> dict[str, Any]:
    area, precision = (float(value[0]) for value in weighted_auroc_ap(positive, result.scores))
    n_patients = int(patient.max()) + 1
    weights = cluster_weights(n_patients, statistics["n_bootstrap"], rng)[:, patient]
    (area_low, area_high), (ap_low, ap_high) = (
        percentile_interval(value) for value in weighted_auroc_ap(positive, result.scores, weights)
    )
    null = result.null
    null_low, null_high = percentile_interval(null) if len(null) else (np.nan, np.nan)
    return {
        "auroc": area,
        "auroc_low": float(area_low),
        "auroc_high": float(area_high),
        "ap": precision,
        "ap_low": float(ap_low),
        "ap_high": float(ap_high),
        "prevalence": float(positive.mean()),
        "ap_lift": precision / float(positive.mean()),
        "auroc_null": float(null.mean()) if len(null) else None,
        "auroc_null_low": float(null_low),
        "auroc_null_high": float(null_high),
        "pvalue": result.pvalue,
        "n_positive": int(positive.sum()),
        "n_negative": int((~positive).sum()),
        "n_patients": n_patients,
        "n_shuffles": result.n_shuffles,
        "n_folds": result.n_folds,
        "n_active_weights": result.n_active_weights,
    }
