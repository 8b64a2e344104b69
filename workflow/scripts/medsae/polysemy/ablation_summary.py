"""Does a sense need its latents? ΔCE per term and sense, against both controls.

    linked_on − random_on             d on: the linked latent against its matched control
    did = d on − d off                and whether that holds for its own sense only

Means are over rows (one latent at one occurrence); intervals are percentiles of a
bootstrap over patients. The contrast d on is tested by flipping, patient by patient, the
sign of all its differences: under the null hypothesis a linked latent and its control
could be exchanged. The difference in differences is tested by exchanging the patients'
sequences of own and other senses. Both tests are one-sided: removal hurts more.
"""

import numpy as np
import polars as pl

from medsae.polysemy.columns import POLYSEMOUS
from medsae.statistics import (
    benjamini_hochberg,
    cluster_weights,
    percentile_interval,
    permuted_labels,
    pvalue_greater,
    sign_flip_pvalue,
    stream,
)

MIN_PATIENTS = 5
"""Patients below which no interval and no p-value is given."""

CELLS = ("linked_on", "random_on", "linked_off", "random_off")
ESTIMATES = (*CELLS, "contrast", "did")

NO_LATENT = "no confirmed sense-linked latent"
FEW_ON = f"its latents fire at the term in fewer than {MIN_PATIENTS} patients"
FEW_OFF = f"its latents fire at the other senses in fewer than {MIN_PATIENTS} patients"


def all_senses(occurrences: pl.LazyFrame) -> pl.DataFrame:
    """lemma, sense of every sense that has an occurrence in the table of pooled latents."""
    known = occurrences.filter(pl.col("sense").is_not_null(), pl.col("kind") == POLYSEMOUS)
    return known.select(pl.col("lemma", "sense").cast(pl.String)).unique().collect()


def summarize_ablation(
    deltas: pl.DataFrame,
    pairs: pl.DataFrame,
    senses: pl.DataFrame,
    n_permutations: int,
    n_bootstrap: int,
    seed: int,
) -> pl.DataFrame:
    """One row per lemma and sense of ``senses`` (columns lemma, sense).

    ``deltas`` from ``ablate``; ``pairs`` from ``choose_occurrences``. ``n_silent``: pairs
    of a latent and an occurrence that gave no row, because the latent does not fire in the
    re-read window or no token follows the term. ``pvalue`` and ``qvalue`` are of ``did``,
    ``pvalue_contrast`` and ``qvalue_contrast`` of linked_on − random_on. Estimates without
    enough patients are null, with the ``reason``.
    """
    rows = []
    for lemma, sense in senses.select("lemma", "sense").unique().sort("lemma", "sense").iter_rows():
        here = (pl.col("lemma") == lemma) & (pl.col("sense") == sense)
        linked = deltas.filter(here & pl.col("linked"))
        control = deltas.filter(here & ~pl.col("linked")).select(
            "occurrence_id",
            pl.col("matched_to").alias("latent_id"),
            pl.col("delta_ce").alias("random"),
        )
        table = linked.join(control, on=["occurrence_id", "latent_id"], how="left").sort(
            "patient_id", "occurrence_id", "latent_id"
        )
        estimates = _estimate(table, n_permutations, n_bootstrap, stream(seed, lemma, sense))
        chosen = pairs.filter(here)
        if chosen.is_empty():
            estimates["reason"] = NO_LATENT
        on = table.filter("on_sense")
        rows.append(
            {
                "lemma": lemma,
                "sense": sense,
                **estimates,
                "n_latents": chosen["latent_id"].n_unique(),
                "n_occurrences": on["occurrence_id"].n_unique(),
                "n_occurrences_off": table.filter(~pl.col("on_sense"))["occurrence_id"].n_unique(),
                "n_patients": table["patient_id"].n_unique(),
                "n_pairs": table.height,
                "n_without_control": table["random"].null_count(),
                "n_silent": chosen.height - table.height,
            }
        )
    result = pl.DataFrame(rows, schema=_schema())
    q = {
        f"qvalue{suffix}": benjamini_hochberg(
            result[f"pvalue{suffix}"].fill_null(np.nan).to_numpy()
        )
        for suffix in ("", "_contrast")
    }
    return result.with_columns(pl.Series(name, values).fill_nan(None) for name, values in q.items())


def _estimate(
    table: pl.DataFrame, n_permutations: int, n_bootstrap: int, rng: np.random.Generator
) -> dict[str, float | str | None]:
    """Cells, contrasts, intervals and p-values of one lemma and sense; ``table`` by patient."""
    result: dict[str, float | str | None] = {"reason": None}
    if table.is_empty():
        result["reason"] = FEW_ON
        return result
    patient = table["patient_id"].rle_id().to_numpy()
    on = table["on_sense"].to_numpy()
    linked, random = (table[name].cast(pl.Float64).to_numpy() for name in ("delta_ce", "random"))
    paired = ~np.isnan(random)
    n_patients = int(patient[-1]) + 1

    def by_patient(rows: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        weights = None if values is None else values[rows]
        return np.bincount(patient[rows], weights, minlength=n_patients).astype(float)

    # [4, n_patients]: sums and numbers of rows in each cell; controls where there is one
    cells = [(on, linked), (on & paired, random), (~on, linked), (~on & paired, random)]
    sums = np.stack([by_patient(rows, values) for rows, values in cells])
    counts = np.stack([by_patient(rows) for rows, _ in cells])
    difference_sums = np.stack(
        [by_patient(rows & paired, np.where(paired, linked - random, 0)) for rows in (on, ~on)]
    )
    enough = (counts > 0).sum(1) >= MIN_PATIENTS
    weights = np.vstack([np.ones((1, n_patients)), cluster_weights(n_patients, n_bootstrap, rng)])
    with np.errstate(invalid="ignore", divide="ignore"):
        means = weights @ sums.T / (weights @ counts.T)  # [1 + B, 4]
        contrasts = weights @ difference_sums.T / (weights @ counts[[1, 3]].T)  # [1 + B, 2]
    did = contrasts[:, 0] - contrasts[:, 1]
    series = [*means.T, contrasts[:, 0], did]
    usable = [*enough, enough[1], enough[1] and enough[3]]
    for name, values, ok in zip(ESTIMATES, series, usable, strict=True):
        if ok:
            low, high = percentile_interval(values[1:])
            result |= {name: values[0], f"{name}_low": float(low), f"{name}_high": float(high)}
    if not enough[1]:
        result["reason"] = FEW_ON
        return result
    result["pvalue_contrast"] = sign_flip_pvalue(difference_sums[0], n_permutations, rng)
    if enough[3]:
        rows = np.flatnonzero(paired)
        result["pvalue"] = _exchange_senses(
            (linked - random)[rows], on[rows], patient[rows], n_permutations, rng
        )
    else:
        result["reason"] = FEW_OFF
    return result


def _exchange_senses(
    differences: np.ndarray,
    on: np.ndarray,
    patient: np.ndarray,
    n_permutations: int,
    rng: np.random.Generator,
) -> float:
    """p of mean(differences | on) > mean(differences | off) under exchange among patients."""
    codes = np.unique(patient, return_inverse=True)[1]

    def statistic(labels: np.ndarray) -> np.ndarray:
        n_on = labels.sum(1)
        total = differences.sum()
        sum_on = labels @ differences
        with np.errstate(invalid="ignore", divide="ignore"):
            return sum_on / n_on - (total - sum_on) / (len(differences) - n_on)

    observed = statistic(on[None].astype(np.int8))[0]
    slack = 1e-12 * np.abs(differences).max()
    reaching = 0
    for labels in permuted_labels(on.astype(np.int8), codes, n_permutations, rng):
        # A permutation without one of the two senses says nothing: it counts as reaching.
        reaching += int((~(statistic(labels) < observed - slack)).sum())
    return float(pvalue_greater(reaching, n_permutations))


def _schema() -> dict[str, type[pl.DataType]]:
    numbers = [f"{name}{suffix}" for name in ESTIMATES for suffix in ("", "_low", "_high")]
    tests = ("pvalue", "qvalue", "pvalue_contrast", "qvalue_contrast")
    counts = ("n_latents", "n_occurrences", "n_occurrences_off", "n_patients", "n_pairs")
    return {
        "lemma": pl.String,
        "sense": pl.String,
        **dict.fromkeys((*numbers, *tests), pl.Float64),
        **dict.fromkeys((*counts, "n_without_control", "n_silent"), pl.Int64),
        "reason": pl.String,
    }
