"""Can a sense be read off one latent, or off all of them? Probes on patients never trained on.

Single-latent probes: p(sense) = σ(w z + b) for each discovered sense-linked latent, z its
normalised activation, trained on the discovering half of the patients, judged on the other.

Null: labels of the judged patients permuted, the fitted probes kept. Sense probes, on all
latents: ``medsae.polysemy.sense_probes``.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csc_array
from scipy.special import expit
from scipy.stats import rankdata

from medsae.io import progress
from medsae.polysemy.ablation_plan import read_linked
from medsae.polysemy.columns import POLYSEMOUS, SENSE_PROBES, SINGLE_PROBES, tidy
from medsae.polysemy.sense_probes import (
    PRECISION_K,
    TIE,
    sense_probe_rows,
)
from medsae.polysemy.sparse import (
    SenseSample,
    codes_of,
    read_lemmas,
    sense_sample,
    source_of,
)
from medsae.polysemy.splits import discovery_half
from medsae.statistics import (
    NOT_EXCHANGEABLE,
    benjamini_hochberg,
    permutations_needed,
    permuted_labels,
    precision_at_top,
    pvalue_greater,
    stream,
    weighted_auroc_ap,
)

ALPHA = 0.05
NEWTON_STEPS = 100


def probe_latents(
    latents: str | Path, linked: str | Path, statistics: dict[str, int]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Tables single_latent_probes and sense_probes of one SAE.

    ``linked``: sense_linked_latents.csv; its discovered latents are probed.
    """
    found = read_linked(linked).filter(pl.col("discovered"))
    single: list[pl.DataFrame] = []
    senses: list[dict[str, Any]] = []
    polysemous = pl.col("kind").cast(pl.String) == POLYSEMOUS
    tests = pl.scan_parquet(latents).filter(polysemous, pl.col("sense").is_not_null())
    n_terms = tests.select(pl.col("lemma").n_unique()).collect().item()
    max_shuffles = permutations_needed(max(1, n_terms), ALPHA, 0)
    for lemma in progress(read_lemmas(latents, "z_values_norm", (POLYSEMOUS,)), "probing"):
        sample = sense_sample(lemma, statistics["min_occurrences"])
        senses += sense_probe_rows(sample, statistics, max_shuffles)
        if sample.reason is None:
            single += _single_rows(sample, found.filter(pl.col("lemma") == lemma.lemma), statistics)
    source = {name: pl.lit(value) for name, value in source_of(latents).items()}
    return (
        _finish(pl.concat(single) if single else None, SINGLE_PROBES, source).sort(
            "lemma", "sense", "latent_id"
        ),
        _finish(pl.DataFrame(senses, infer_schema_length=None), SENSE_PROBES, source),
    )


def fit_single_probes(
    activations: NDArray[np.floating], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """w [L] and b [L] of one logistic regression per column of ``activations`` [n, L].

    Minimises ½ w² + Σ log loss, the intercept free (scikit-learn's C = 1), by Newton's method
    with the Hessian's diagonal of the two parameters kept away from 0.
    """
    x = np.asarray(activations, dtype=np.float64)
    y = np.asarray(positive, dtype=np.float64)[:, None]
    w = np.zeros(x.shape[1])
    b = np.full(x.shape[1], np.log(y.sum() + 0.5) - np.log((1 - y).sum() + 0.5))
    for _ in range(NEWTON_STEPS):
        p = expit(x * w + b)
        grad_w, grad_b = w + (x * (p - y)).sum(0), (p - y).sum(0)
        h = np.maximum(p * (1 - p), 1e-9)
        h_ww, h_wb, h_bb = 1 + (x * x * h).sum(0), (x * h).sum(0), h.sum(0)
        det = h_ww * h_bb - h_wb**2
        step_w = (h_bb * grad_w - h_wb * grad_b) / det
        step_b = (h_ww * grad_b - h_wb * grad_w) / det
        largest = np.maximum(np.abs(step_w), np.abs(step_b))
        damping = np.minimum(1.0, 5.0 / np.maximum(largest, 1e-300))
        w, b = w - damping * step_w, b - damping * step_b
        if largest.max(initial=0.0) < 1e-10:
            break
    return w, b


def null_aurocs(
    activations: NDArray[np.floating],
    patient: NDArray[np.integer],
    label: NDArray[np.int8],
    sense: int,
    n_permutations: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """AUROC [B, L] of each column for ``sense`` after labels are permuted by patient."""
    ranks = rankdata(activations, axis=0)
    blocks = []
    for block in permuted_labels(label, patient, n_permutations, rng):
        positive = (block == sense).astype(np.float64)
        n = positive.sum(1)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            blocks.append((positive @ ranks - n * (n + 1) / 2) / (n * (len(label) - n)))
    return np.concatenate(blocks)


def _single_rows(
    sample: SenseSample, found: pl.DataFrame, statistics: dict[str, int]
) -> list[pl.DataFrame]:
    lemma, seed = sample.latents, statistics["seed"]
    train = discovery_half(sample, seed)
    test = np.flatnonzero(~train)
    patient = codes_of(lemma.table["patient_id"][test])
    columns = csc_array(lemma.codes)
    parts = []
    for sense, name in enumerate(sample.senses):
        own = found.filter(pl.col("sense") == name).sort("latent_id")
        own = own.filter(pl.col("latent_id") < columns.shape[1])
        positive = sample.label == sense
        if own.is_empty():
            continue
        z = columns[:, own["latent_id"].to_numpy()].toarray().astype(np.float64)
        w, b = fit_single_probes(z[train], positive[train])
        logits = z[test] * w + b
        truth = positive[test]
        # a negative w turns the ranking round; the probe is what is judged
        scores = [weighted_auroc_ap(truth, column) for column in logits.T]
        area = np.array([score[0][0] for score in scores])
        precision = np.array([score[1][0] for score in scores])
        rng = stream(seed, "single probe", lemma.lemma, name)
        null = null_aurocs(
            logits, patient, sample.label[test], sense, statistics["n_permutations"], rng
        )
        k = min(PRECISION_K, len(test))
        # no permuted area differs: silent latents, or patients whose senses cannot be exchanged
        still = ~(np.abs(null - area) > TIE).any(0)
        pvalue = pvalue_greater((~(null < area - TIE)).sum(0), statistics["n_permutations"])
        parts.append(
            pl.DataFrame(
                {
                    "latent_id": own["latent_id"],
                    "w": w,
                    "b": b,
                    "ce_val": (np.logaddexp(0, logits) - truth[:, None] * logits).mean(0),
                    "auroc": area,
                    "ap": precision,
                    "confirmed": own["confirmed"],
                    "ap_lift": precision / truth.mean(),
                    "precision_at_k": [precision_at_top(truth, z, k) for z in logits.T],
                    "auroc_null": np.nanmean(null, axis=0),
                    "auroc_null_high": np.nanquantile(null, 0.975, axis=0),
                    "pvalue": np.where(still, np.nan, pvalue),
                    "reason": [NOT_EXCHANGEABLE if each else None for each in still],
                },
                schema_overrides={"reason": pl.String},
            ).with_columns(
                pl.lit(lemma.lemma).alias("lemma"),
                pl.lit(name).alias("sense"),
                pl.lit(float(truth.mean())).alias("prevalence"),
                pl.lit(k).alias("precision_k"),
                pl.lit(int(train.sum())).alias("n_train"),
                pl.lit(len(test)).alias("n_test"),
                pl.lit(int(truth.sum())).alias("n_test_positive"),
                pl.lit(int(patient.max()) + 1).alias("n_test_patients"),
            )
        )
    return parts


def _finish(
    table: pl.DataFrame | None, columns: tuple[str, ...], source: dict[str, pl.Expr]
) -> pl.DataFrame:
    """All columns in order, q over all tests of the table."""
    if table is None or table.is_empty():
        table = pl.DataFrame(schema={"lemma": pl.String, "sense": pl.String})
    missing = [name for name in columns if name not in table.columns and name not in source]
    table = table.with_columns(pl.lit(None, pl.Float64).alias(name) for name in missing)
    table = table.with_columns(pl.col("pvalue").cast(pl.Float64).fill_nan(None))
    pvalues = table["pvalue"].fill_null(float("nan")).to_numpy()
    table = table.with_columns(pl.Series("qvalue", benjamini_hochberg(pvalues), pl.Float64))
    return tidy(table.with_columns(**source).select(columns))
