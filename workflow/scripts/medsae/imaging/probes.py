"""Linear probes: what can be read off an embedding, or off the features of it, on new patients.

Elastic-net logistic regression (C = 1, l1_ratio = .5, balanced classes, 1000 iterations) on
at most 10,000 slices of the training scans, judged on as many of held-out scans. Columns are
brought to unit variance on the training slices; sparse features are not centred, which keeps
them sparse. Intervals resample patients.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from medsae.imaging import columns as col
from medsae.imaging.artifacts import rows_of_split, sample_rows
from medsae.imaging.result_columns import LINEAR_PROBES
from medsae.imaging.targets import Targets, not_estimable
from medsae.io import progress
from medsae.statistics import (
    MIN_CLUSTERS,
    LogisticFits,
    balanced_weights,
    cluster_weights,
    codes_of,
    fit_elastic_net,
    percentile_interval,
    stream,
    weighted_auroc_ap,
)

Matrix = Any
"""float32 [n, d], dense or CSR."""

MAX_SLICES = 10_000
TRAIN = "train"
JUDGED = ("val", "test")
DENSE, FEATURES = "dense", "features"

BOOTSTRAP_BLOCK = 64


@dataclass(frozen=True)
class Scaled:
    """Columns brought to unit variance: (x − shift) / scale; shift is 0 for sparse ones."""

    shift: NDArray[np.float32]
    scale: NDArray[np.float32]

    def __call__(self, x: Matrix) -> Matrix:
        if issparse(x):
            return csr_array(x.multiply(1 / self.scale[None, :]), dtype=np.float32)
        return (x - self.shift) / self.scale


def scaling_of(x: Matrix) -> Scaled:
    """The scaling that ``x`` [n, d] calls for; a constant column keeps its scale."""
    if issparse(x):
        mean = np.asarray(x.mean(0), np.float64).ravel()
        square = np.asarray(x.multiply(x).mean(0), np.float64).ravel()
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        shift = np.zeros(x.shape[1], np.float32)
    else:
        deviation = x.std(0, dtype=np.float64)
        shift = x.mean(0, dtype=np.float64).astype(np.float32)
    scale = np.where(deviation > 1e-12, deviation, 1.0).astype(np.float32)
    return Scaled(shift, scale)


def split_rows(slices: pl.DataFrame, seed: int) -> dict[str, NDArray[np.int64]]:
    """The slices that probes learn from and are judged on, at most `MAX_SLICES` per split."""
    return {
        split: sample_rows(slices, rows_of_split(slices, split), MAX_SLICES, seed)
        for split in (TRAIN, *JUDGED)
    }


@dataclass(frozen=True)
class Fitted:
    """Probes of the targets that the training slices allow: ``fits`` of ``chosen``.

    ``reasons`` [T]: why a target could not be fitted, None where it was.
    """

    scaling: Scaled
    chosen: tuple[int, ...]
    fits: LogisticFits
    reasons: tuple[str | None, ...]


def fit_probes(
    x: Matrix, rows: NDArray[np.int64], slices: pl.DataFrame, targets: Targets
) -> Fitted:
    """Fit every target that can be fitted on the slices ``rows``, whose columns ``x`` holds."""
    reasons = not_estimable(targets, slices, rows, TRAIN)
    chosen = [t for t, reason in enumerate(reasons) if reason is None]
    scaling = scaling_of(x)
    used, positive = targets.used[rows][:, chosen], targets.positive[rows][:, chosen]
    if chosen:
        fits = fit_elastic_net(scaling(x), positive, balanced_weights(positive, used))
    else:
        empty = np.zeros(0, np.float32)
        fits = LogisticFits(np.zeros((x.shape[1], 0), np.float32), empty, empty.astype(bool))
    return Fitted(scaling, tuple(chosen), fits, tuple(reasons))


def judge_probes(
    fitted: Fitted,
    matrices: dict[str, Matrix],
    rows: dict[str, NDArray[np.int64]],
    slices: pl.DataFrame,
    targets: Targets,
    names: Mapping[str, str | None],
    n_bootstrap: int,
    seed: int,
) -> pl.DataFrame:
    """``linear_probes.csv`` of one representation.

    ``matrices``: split → embedding or features of ``rows[split]``; ``names``: encoder, control,
    control_of and representation. One row per target and judged split; what cannot be
    estimated has a reason instead of an AUROC.
    """
    train_patient = codes_of(slices[col.PATIENT_ID][rows[TRAIN]])
    place = {t: column for column, t in enumerate(fitted.chosen)}
    fits = fitted.fits
    table: list[dict[str, Any]] = []
    for split in JUDGED:
        unjudged = not_estimable(targets, slices, rows[split], split)
        patient = codes_of(slices[col.PATIENT_ID][rows[split]])
        logits = fitted.scaling(matrices[split]) @ fits.coef + fits.intercept
        for t in progress(range(len(targets)), f"probes judged on {split}"):
            used = targets.used[rows[TRAIN], t]
            yes = targets.positive[rows[TRAIN], t]
            here = targets.used[rows[split], t]
            truth = targets.positive[rows[split], t][here]
            row: dict[str, Any] = dict(names) | {
                "task": targets.task[t],
                "target": targets.name[t],
                "split": split,
                "n_train": int(used.sum()),
                "n_train_positive": int((used & yes).sum()),
                "n_train_patients": len(np.unique(train_patient[used])),
                "n": int(here.sum()),
                "n_positive": int(truth.sum()),
                "n_patients": len(np.unique(patient[here])),
                "reason": fitted.reasons[t] or unjudged[t],
            }
            if row["reason"] is None:
                column = place[t]
                rng = stream(seed, "probe", names["representation"], targets.name[t], split)
                row |= judge(truth, logits[here, column], patient[here], n_bootstrap, rng)
                row["n_weights"] = int((fits.coef[:, column] != 0).sum())
                row["converged"] = bool(fits.converged[column])
            table.append(row)
    return probe_table(table)


def judge(
    truth: NDArray[np.bool_],
    scores: NDArray[np.floating],
    patient: NDArray[np.integer],
    n_bootstrap: int,
    rng: np.random.Generator,
) -> dict[str, float | None]:
    """AUROC with its 95% interval over patients (None for too few of them), AP, prevalence."""
    area, ap = (float(value[0]) for value in weighted_auroc_ap(truth, scores))
    group = np.unique(patient, return_inverse=True)[1]
    result: dict[str, float | None] = {
        "auroc": area,
        "auroc_low": None,
        "auroc_high": None,
        "ap": ap,
        "prevalence": float(truth.mean()),
    }
    if int(group.max()) + 1 < MIN_CLUSTERS:
        return result
    resampled = []
    for begin in range(0, n_bootstrap, BOOTSTRAP_BLOCK):
        n = min(BOOTSTRAP_BLOCK, n_bootstrap - begin)
        weights = cluster_weights(int(group.max()) + 1, n, rng)[:, group]
        resampled.append(weighted_auroc_ap(truth, scores, weights)[0])
    low, high = (float(bound) for bound in percentile_interval(np.concatenate(resampled)))
    if not np.isnan(low):
        result |= {"auroc_low": low, "auroc_high": high}
    return result


def probe_table(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """``rows`` with every column of `LINEAR_PROBES`, typed."""
    table = pl.DataFrame(rows, infer_schema_length=None)
    for name in LINEAR_PROBES:
        if name not in table.columns:
            table = table.with_columns(pl.lit(None, pl.Float64).alias(name))
    return table.select(LINEAR_PROBES)
