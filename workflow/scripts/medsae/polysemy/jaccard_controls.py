"""What overlap looks like without senses: control terms, and pairs of different terms.

A control term has one meaning: its overlap with itself across patients is what context alone
leaves. Random halves of its patients stand in for senses; their Δ is a null distribution.
The floor is the overlap of two different terms, below which no two senses need fall.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from medsae.polysemy.columns import CONTROL, FLOOR
from medsae.polysemy.jaccard import Overlaps, overlaps, resampled_overlaps
from medsae.polysemy.overlap import GroupedOverlap, grouped_overlap
from medsae.polysemy.sparse import LemmaLatents, codes_of
from medsae.statistics import cluster_weights, percentile_interval, stream

N_SPLITS = 200
"""Random halves of the patients that stand in for senses of a control term."""

FLOOR_OCCURRENCES = 60
"""Occurrences of each term that enter the comparison of different terms."""

MIN_PATIENTS = 4


def control_rows(lemma: LemmaLatents, depths: list[int], statistics: dict) -> Iterator[dict]:
    """Overlap of a control with itself; Δ of random halves of its patients, as a null."""
    patient = lemma.patient
    n_patients = int(patient.max()) + 1
    base = {
        "lemma": lemma.lemma,
        "kind": CONTROL,
        "n_occurrences1": len(lemma),
        "n_patients": n_patients,
        "reason": None,
    }
    if len(lemma) < statistics["min_occurrences"] or n_patients < MIN_PATIENTS:
        reason = f"{len(lemma)} occurrences in {n_patients} patients are too few"
        yield from (base | {"k": k, "reason": reason} for k in depths)
        return
    seed = statistics["seed"]
    weights = cluster_weights(
        n_patients, statistics["n_bootstrap"], stream(seed, "jaccard ci", lemma.lemma)
    )
    splits = _split_weights(n_patients, stream(seed, "splits", lemma.lemma))
    one = np.zeros(len(lemma), dtype=np.int8)
    for k in depths:
        grouped = grouped_overlap(lemma.codes, patient, one, k)
        whole, resampled = (
            resampled_overlaps(grouped, 1, each).within
            for each in (np.ones((1, n_patients)), weights)
        )
        low, high = percentile_interval(resampled)
        halves = _split_overlaps(grouped, splits)
        row = base | {
            "k": k,
            "within": float(whole[0]),
            "within_low": float(low),
            "within_high": float(high),
        }
        for name in ("cross", "delta", "polysemy_index"):
            values = getattr(halves, name)
            bounds = percentile_interval(values)
            row |= {
                name: float(np.nanmean(values)),
                f"{name}_low": float(bounds[0]),
                f"{name}_high": float(bounds[1]),
            }
        yield row


def half_split(patient: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.int8]:
    """0 or 1 for each occurrence: a random half of the patients each."""
    return _split_weights(int(patient.max()) + 1, rng)[0][patient]


def floor_sample(latents: LemmaLatents, seed: int) -> LemmaLatents:
    """A few random occurrences of a term, as many for each term."""
    rng = stream(seed, "floor", latents.lemma)
    return latents.take(np.sort(rng.permutation(len(latents))[:FLOOR_OCCURRENCES]))


def floor_rows(samples: list[LemmaLatents], depths: list[int], statistics: dict) -> Iterator[dict]:
    """Mean overlap of occurrences of different terms from different patients, for each k."""
    if len(samples) < 2:
        return
    width = max(sample.codes.shape[1] for sample in samples)
    codes = csr_array(vstack([_widened(sample.codes, width) for sample in samples]))
    patient = codes_of(pl.concat([sample.table["patient_id"] for sample in samples]))
    term = np.repeat(np.arange(len(samples)), [len(sample) for sample in samples])
    n_patients = int(patient.max()) + 1
    weights = cluster_weights(
        n_patients, statistics["n_bootstrap"], stream(statistics["seed"], "jaccard ci", FLOOR)
    )
    for k in depths:
        grouped = grouped_overlap(codes, patient, term.astype(np.int16), k)
        cross, resampled = (
            _between_terms(grouped, each) for each in (np.ones((1, n_patients)), weights)
        )
        low, high = percentile_interval(resampled)
        yield {
            "lemma": "different lemmas",
            "kind": FLOOR,
            "k": k,
            "cross": float(cross[0]),
            "cross_low": float(low),
            "cross_high": float(high),
            "n_occurrences1": len(term),
            "n_patients": n_patients,
            "reason": None,
        }


def _between_terms(grouped: GroupedOverlap, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    other_term = grouped.label[:, None] != grouped.label[None, :]
    apart = other_term & (grouped.patient[:, None] != grouped.patient[None, :])
    pairs = apart * np.outer(grouped.sizes, grouped.sizes)
    spread = weights[:, grouped.patient]
    sums = ((spread @ (grouped.sums * other_term)) * spread).sum(1)
    return sums / ((spread @ pairs) * spread).sum(1)


def _widened(codes: csr_array, width: int) -> csr_array:
    return csr_array((codes.data, codes.indices, codes.indptr), shape=(codes.shape[0], width))


def _split_weights(n_patients: int, rng: np.random.Generator) -> NDArray[np.int8]:
    order = rng.random((N_SPLITS, n_patients)).argsort(axis=1).argsort(axis=1)
    return (order < n_patients // 2).astype(np.int8)


def _split_overlaps(grouped: GroupedOverlap, splits: NDArray[np.int8]) -> Overlaps:
    """Overlaps of pseudo-senses; ``grouped`` has one group per patient, ``splits`` [R, P]."""
    halves = [splits.astype(np.float64), 1.0 - splits]
    sums = np.empty((len(splits), 2, 2))
    pairs = np.empty_like(sums)
    for s in range(2):
        product = halves[s] @ grouped.sums
        for t in range(2):
            sums[:, s, t] = (product * halves[t]).sum(1)
            same = (halves[s] * halves[t]) @ grouped.sizes.astype(np.float64) ** 2
            pairs[:, s, t] = (halves[s] @ grouped.sizes) * (halves[t] @ grouped.sizes) - same
    return overlaps(sums, pairs)
