"""How much of a dense probe do a few features recover?

For each target: features ranked by |coefficient| of the elastic-net probe on all features,
fitted on the training slices; refitted with the first N of them; judged on held-out scans.

    published   AUROC_N / AUROC_dense             (a useless feature recovers half)
    build       (AUROC_N − ½) / (AUROC_dense − ½)

The smallest N that reaches a share of the dense probe is right-censored at the largest N
tried: "more than 100", never left out.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from medsae.imaging.probes import JUDGED, TRAIN, Fitted
from medsae.imaging.result_columns import RECOVERY
from medsae.imaging.targets import Targets
from medsae.io import progress
from medsae.statistics import auroc, balanced_weights, fit_elastic_net

SIZES = (1, 2, 3, 5, 10, 20, 30, 50, 75, 100)
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
MIN_DENSE = 0.55
"""A dense probe below this has nothing above chance to recover."""

N_NAMED = 10


def recovery(
    matrices: dict[str, csr_array],
    rows: dict[str, NDArray[np.int64]],
    targets: Targets,
    dense: pl.DataFrame,
    names: Mapping[str, str | None],
    fitted: Fitted,
) -> pl.DataFrame:
    """``recovery.csv`` of one SAE: one row per target, judged split and N.

    ``matrices``: split → features of ``rows[split]``; ``dense``: the encoder's
    ``linear_probes.csv``, whose dense AUROCs are to be recovered; ``names``: base_model,
    sae_config, control and control_of; ``fitted``: the probes on all features. Column features:
    the first ten of the ranking, in the rows of the largest N.
    """
    reached = {
        (row["target"], row["split"]): row
        for row in dense.filter(pl.col("representation") == "dense").iter_rows(named=True)
    }
    place = {t: column for column, t in enumerate(fitted.chosen)}
    wanted = [
        t
        for t, name in enumerate(targets.name)
        if t in place
        and any(reached.get((name, split), {}).get("auroc") is not None for split in JUDGED)
    ]
    table: list[dict[str, Any]] = []
    for t, name in enumerate(targets.name):
        if t not in wanted:
            reasons = [reached.get((name, split), {}).get("reason") for split in JUDGED]
            reason = next((r for r in reasons if r), "no dense probe")
            table.append({**names, "target": name, "reason": reason})
    if wanted:
        scaled = {name: csc_array(fitted.scaling(matrix)) for name, matrix in matrices.items()}
        for t in progress(wanted, "targets recovered"):
            ranking = rank_features(fitted.fits.coef[:, place[t]])
            curves = recovery_curve(scaled, rows, targets, t, ranking)
            for split, curve in curves.items():
                against = reached.get((targets.name[t], split), {})
                base = {**names, "target": targets.name[t], "split": split}
                table += _rows(base, curve, against, ranking)
    frame = pl.DataFrame(table, infer_schema_length=None)
    missing = [name for name in RECOVERY if name not in frame.columns]
    frame = frame.with_columns(pl.lit(None, pl.Float64).alias(name) for name in missing)
    return frame.select(RECOVERY).sort("target", "split", "n_features")


def rank_features(coefficients: NDArray[np.floating]) -> NDArray[np.int64]:
    """Features with a coefficient, largest absolute value first; ties go to the lower index."""
    size = np.abs(coefficients)
    order = np.argsort(-size, kind="stable")
    return order[size[order] > 0]


def recovery_curve(
    scaled: dict[str, csc_array],
    rows: dict[str, NDArray[np.int64]],
    targets: Targets,
    t: int,
    ranking: NDArray[np.int64],
) -> dict[str, NDArray[np.float64]]:
    """AUROC [sizes] of target ``t`` with the first N ranked features, for each judged split.

    All N are fitted together: one column per N, restricted to its features.
    """
    most = ranking[: SIZES[-1]]
    used = targets.used[rows[TRAIN], t]
    positive = np.repeat(targets.positive[rows[TRAIN], t][:, None], len(SIZES), axis=1)
    curves = {split: np.full(len(SIZES), np.nan) for split in JUDGED}
    if not len(most):
        # every coefficient is zero: the probe ranks all slices alike
        return {split: np.full(len(SIZES), 0.5) for split in JUDGED}
    allowed = np.arange(len(most))[:, None] < np.array(SIZES)[None, :]
    x = scaled[TRAIN][:, most].toarray()[used]
    weights = balanced_weights(positive[used], np.ones_like(positive[used]))
    fits = fit_elastic_net(x, positive[used], weights, allowed=allowed)
    for split in JUDGED:
        here = np.flatnonzero(targets.used[rows[split], t])
        truth = targets.positive[rows[split], t][here]
        if not len(here) or truth.all() or not truth.any():
            continue
        logits = scaled[split][:, most].toarray()[here] @ fits.coef + fits.intercept
        curves[split] = np.array([auroc(truth, column) for column in logits.T])
    return curves


def _rows(
    base: dict[str, Any], curve: NDArray, against: dict[str, Any], ranking: NDArray
) -> list[dict[str, Any]]:
    dense = against.get("auroc")
    if dense is None:
        return [base | {"reason": against.get("reason") or "no dense probe"}]
    out = []
    for n, area in zip(SIZES, curve.tolist(), strict=True):
        if np.isnan(area):
            continue
        above = (area - 0.5) / (dense - 0.5) if dense >= MIN_DENSE else None
        row = base | {
            "n_features": n,
            "auroc": area,
            "auroc_dense": dense,
            "recovery": area / dense if dense > 0 else None,
            "recovery_above_chance": above,
            "n_available": len(ranking),
            "reason": None if above is not None else f"the dense probe is below {MIN_DENSE}",
        }
        if n == SIZES[-1]:
            row["features"] = ";".join(map(str, ranking[:N_NAMED].tolist()))
        out.append(row)
    return out


def first_sizes(curves: pl.DataFrame, measure: str) -> pl.DataFrame:
    """Smallest N that reaches each threshold of ``measure``, for each target of one SAE.

    Columns target, threshold, n_features (the largest N tried if none reaches), censored.
    A target without ``measure`` is left out.
    """
    table = curves.filter(pl.col(measure).is_not_null())
    tried = SIZES[-1]
    parts = []
    for threshold in THRESHOLDS:
        # rounding must not decide whether a dense probe was reached
        enough = pl.col(measure) >= threshold - 1e-9
        parts.append(
            table.group_by("target", maintain_order=True).agg(
                pl.lit(threshold).alias("threshold"),
                pl.col("n_features").filter(enough).min().alias("n_features"),
            )
        )
    return pl.concat(parts).with_columns(
        censored=pl.col("n_features").is_null(), n_features=pl.col("n_features").fill_null(tried)
    )
