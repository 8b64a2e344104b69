"""Does a sense need its latents? ΔCE per term and sense, against both controls.

    d = ΔCE of a linked latent − ΔCE of its matched control, at the same occurrence
    contrast = mean of d where the latent's own sense is meant
    did      = mean of d there − mean of d at the other senses, within latents

Latents differ in how much their removal costs, whatever is meant, and in how often they fire
where; by construction a linked latent fires mostly at its own sense. A plain difference of the
two means would therefore compare different latents. So each latent is compared with itself:

    did = Σ_ℓ w_ℓ (d̄_ℓ,on − d̄_ℓ,off) / Σ_ℓ w_ℓ,   w_ℓ = n_ℓ,on n_ℓ,off / (n_ℓ,on + n_ℓ,off),

which is the coefficient of own sense in a regression of d with an intercept per latent. It is
Σ_i x_i d_i / Σ_i x_i² with x the indicator of own sense centred within each latent, so a patient's
part in it is a sum over the patient's rows. Intervals and p-values come from subsets and resamples
of patients (``medsae.statistics.ratios``); the p-values are one-sided: removal hurts more.

``did`` is of the whole loss. Linked latents also fire more strongly at their own sense, and if ΔCE
is proportional to activation that alone makes ``did`` positive. How much more strongly says
``activation_on_over_off``, which is ``did`` of ln activation, exponentiated: same latents, same
weights, same patients.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medsae.polysemy.columns import POLYSEMOUS
from medsae.statistics import benjamini_hochberg, cluster_ratios, codes_of, stream

MIN_PATIENTS = 6
"""Patients below which no interval and no p-value is given: of fewer no 95% interval ends."""

ALL_TERMS = "all terms"
"""``lemma`` of the row over all terms and senses together."""

CELLS = ("linked_on", "random_on", "linked_off", "random_off")
LOG_ESTIMATE = "activation_on_over_off"
ESTIMATES = (*CELLS, "contrast", "did", LOG_ESTIMATE)

NO_LATENT = "no confirmed sense-linked latent"
FEW_ON = f"its latents fire at the term in fewer than {MIN_PATIENTS} patients"
FEW_OFF = f"no latent of its fires at both its own and other senses in {MIN_PATIENTS} patients each"
NOTHING_CHANGES = "not testable: no removal changes the loss, so flipping signs changes nothing"


def all_senses(occurrences: pl.LazyFrame) -> pl.DataFrame:
    """lemma, sense of every sense that has an occurrence in the table of pooled latents."""
    known = occurrences.filter(pl.col("sense").is_not_null(), pl.col("kind") == POLYSEMOUS)
    return known.select(pl.col("lemma", "sense").cast(pl.String)).unique().collect()


def summarize_ablation(
    deltas: pl.DataFrame, pairs: pl.DataFrame, senses: pl.DataFrame, n_resamples: int, seed: int
) -> pl.DataFrame:
    """One row per lemma and sense of ``senses`` (columns lemma, sense), one over `ALL_TERMS`.

    ``deltas`` from ``ablate``; ``pairs`` from ``choose_occurrences``. ``n_silent``: pairs
    of a latent and an occurrence that gave no row, because the latent does not fire in the
    re-read window or no token follows the term. ``activation_ratio_on`` and ``_off``:
    geometric mean of the linked latent's activation over its control's, 1 where strengths
    match. ``activation_on_over_off``: of its own activation, where its sense is meant over
    where another is. ``pvalue`` and ``qvalue`` are of ``did``, ``pvalue_contrast`` and
    ``qvalue_contrast`` of ``contrast``; q over the senses. ``smallest_q`` and
    ``smallest_q_contrast``: what the sense could reach alone if all its patients agreed.
    ``n_patients_on``: patients that ``contrast`` rests on. The cells are means over all rows,
    whichever latent, so ``did`` is not made of them. Estimates without enough patients are
    null, with the ``reason``.
    """
    table = paired(deltas)
    parts = [
        (lemma, sense, (pl.col("lemma") == lemma) & (pl.col("sense") == sense))
        for lemma, sense in senses.select("lemma", "sense").unique().sort("lemma", "sense").rows()
    ]
    rows = [
        {"lemma": lemma, "sense": sense}
        | _summary_row(
            table.filter(which), pairs.filter(which), n_resamples, stream(seed, lemma, sense)
        )
        for lemma, sense, which in (*parts, (ALL_TERMS, None, pl.lit(True)))
    ]
    result = pl.DataFrame(rows, schema=_schema())
    of_a_sense = result["sense"].is_not_null()
    for name in ("value", "value_contrast"):
        p = pl.when(of_a_sense).then(pl.col(f"p{name}")).fill_null(np.nan)
        q = benjamini_hochberg(result.select(p).to_series().to_numpy())
        smallest = pl.col(f"smallest_p{name}") * (~np.isnan(q)).sum()
        result = result.with_columns(
            pl.Series(f"q{name}", q).fill_nan(None),
            pl.when(of_a_sense).then(smallest.clip(upper_bound=1)).alias(f"smallest_p{name}"),
        )
    return result.rename(lambda name: name.replace("smallest_pvalue", "smallest_q"))


def paired(deltas: pl.DataFrame) -> pl.DataFrame:
    """Each linked latent's rows with ``random``, ΔCE of its control (null if it has none), and
    ``log_ratio`` of the two activations, by patient."""
    keys = ["lemma", "sense", "occurrence_id", "latent_id"]
    control = deltas.filter(~pl.col("linked")).select(
        "lemma",
        "sense",
        "occurrence_id",
        pl.col("matched_to").alias("latent_id"),
        pl.col("delta_ce").alias("random"),
        pl.col("activation").alias("control_activation"),
    )
    ratio = pl.col("activation") / pl.col("control_activation")
    return (
        deltas.filter("linked")
        .join(control, on=keys, how="left")
        .with_columns(ratio.log().alias("log_ratio"))
        .sort("patient_id", *keys)
    )


@dataclass(frozen=True)
class Scores:
    """Each patient's part [P] in Σ x d and Σ x², and which patients are on either side."""

    numerator: NDArray[np.float64]
    denominator: NDArray[np.float64]
    n_patients_on: int
    n_patients_off: int
    n_latents: int


def within_latents(
    difference: NDArray[np.floating],
    on: NDArray[np.bool_],
    latent: NDArray[np.integer],
    patient: NDArray[np.integer],
    n_patients: int,
) -> Scores:
    """The parts of ``did`` from one ``difference`` [n] per latent and occurrence.

    ``latent`` [n] and ``patient`` [n] are codes from 0. Latents that fire on one side only
    have x = 0: they do not take part.
    """
    n = np.bincount(latent)
    n_on = np.bincount(latent, on)
    with np.errstate(invalid="ignore"):
        x = on - (n_on / n)[latent]
        centred = difference - (np.bincount(latent, difference) / n)[latent]
    compared = ((n_on > 0) & (n_on < n))[latent]
    return Scores(
        np.bincount(patient[compared], (x * centred)[compared], n_patients).astype(float),
        np.bincount(patient[compared], (x * x)[compared], n_patients).astype(float),
        len(np.unique(patient[compared & on])),
        len(np.unique(patient[compared & ~on])),
        len(np.unique(latent[compared])),
    )


def _summary_row(
    table: pl.DataFrame, chosen: pl.DataFrame, n_resamples: int, rng: np.random.Generator
) -> dict[str, float | int | str | None]:
    estimates, n_compared, n_patients_on = _estimate(table, n_resamples, rng)
    if chosen.is_empty():
        estimates["reason"] = NO_LATENT
    occurrences, ratios = [], []
    for side in (pl.col("on_sense"), ~pl.col("on_sense")):
        part = table.filter(side)
        occurrences.append(part["occurrence_id"].n_unique())
        ratio = part["log_ratio"].mean()
        ratios.append(None if ratio is None else float(np.exp(ratio)))  # type: ignore[arg-type]
    return {
        **estimates,
        "activation_ratio_on": ratios[0],
        "activation_ratio_off": ratios[1],
        "n_latents": chosen.select("lemma", "sense", "latent_id").n_unique(),
        "n_latents_compared": n_compared,
        "n_occurrences": occurrences[0],
        "n_occurrences_off": occurrences[1],
        "n_patients": table["patient_id"].n_unique(),
        "n_patients_on": n_patients_on,
        "n_pairs": table.height,
        "n_without_control": table["random"].null_count(),
        "n_silent": chosen.height - table.height,
    }


def _estimate(
    table: pl.DataFrame, n_resamples: int, rng: np.random.Generator
) -> tuple[dict[str, float | int | str | None], int, int]:
    """`ESTIMATES` with intervals and p-values, the number of latents that did compares and of
    patients that contrast rests on."""
    if table.is_empty():
        return {"reason": FEW_ON}, 0, 0
    patient = table["patient_id"].rle_id().to_numpy().astype(np.intp)
    n_patients = int(patient[-1]) + 1
    on = table["on_sense"].to_numpy()
    linked, random = (table[name].cast(pl.Float64).to_numpy() for name in ("delta_ce", "random"))
    has_control = ~np.isnan(random)
    difference = np.where(has_control, linked - random, 0.0)

    def by_patient(rows: NDArray[np.bool_], values: NDArray | None = None) -> NDArray[np.float64]:
        weights = None if values is None else values[rows]
        return np.bincount(patient[rows], weights, n_patients).astype(float)

    cells = [
        (on, linked),
        (on & has_control, random),
        (~on, linked),
        (~on & has_control, random),
        (on & has_control, difference),
    ]
    counts = [by_patient(rows) for rows, _ in cells]
    latent = codes_of(
        table.select(pl.concat_str("lemma", "sense", "latent_id", separator="\t")).to_series()
    )
    within, strength = (
        within_latents(
            values[has_control],
            on[has_control],
            latent[has_control],
            patient[has_control],
            n_patients,
        )
        for values in (difference, np.log(table["activation"].to_numpy()))
    )
    # no data of these patients give a smaller p than scores that are all positive
    positive = [counts[4], within.denominator]
    sums = [by_patient(rows, values) for rows, values in cells]
    ratios = cluster_ratios(
        np.stack([*sums, within.numerator, strength.numerator, *positive]),
        np.stack([*counts, within.denominator, strength.denominator, *positive]),
        n_resamples,
        rng,
    )
    enough = [(count > 0).sum() >= MIN_PATIENTS for count in counts]
    enough += [min(within.n_patients_on, within.n_patients_off) >= MIN_PATIENTS] * 2
    result: dict[str, float | int | str | None] = {"reason": None}
    for index, name in enumerate(ESTIMATES):
        if enough[index]:
            for suffix in ("value", "low", "high"):
                value = float(getattr(ratios, suffix)[index])
                value = float(np.exp(value)) if name == LOG_ESTIMATE else value
                key = name if suffix == "value" else f"{name}_{suffix}"
                result[key] = None if np.isnan(value) else value
    contrast, did, _, *smallest = ratios.pvalue[len(CELLS) :].tolist()
    tests = ((4, "pvalue_contrast", FEW_ON, contrast), (5, "pvalue", FEW_OFF, did))
    for (index, name, few, p), smallest_p in zip(tests, smallest, strict=True):
        if not enough[index]:
            result["reason"] = result["reason"] or few
        elif np.isnan(p):
            result["reason"] = result["reason"] or NOTHING_CHANGES
        else:
            result[name] = p
            result[f"smallest_{name}"] = smallest_p
    return result, within.n_latents, int((counts[4] > 0).sum())


def _schema() -> dict[str, type[pl.DataType]]:
    numbers = [f"{name}{suffix}" for name in ESTIMATES for suffix in ("", "_low", "_high")]
    tests = [f"{of}value{which}" for which in ("", "_contrast") for of in ("p", "q", "smallest_p")]
    ratios = ("activation_ratio_on", "activation_ratio_off")
    counts = (
        "n_latents",
        "n_latents_compared",
        "n_occurrences",
        "n_occurrences_off",
        "n_patients",
        "n_patients_on",
        "n_pairs",
        "n_without_control",
        "n_silent",
    )
    return {
        "lemma": pl.String,
        "sense": pl.String,
        **dict.fromkeys((*numbers, *tests, *ratios), pl.Float64),
        **dict.fromkeys(counts, pl.Int64),
        "reason": pl.String,
    }
