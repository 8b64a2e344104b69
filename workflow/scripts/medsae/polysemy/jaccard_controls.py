"""What overlap looks like without senses: control terms, and pairs of different terms.

A control term has one meaning: its overlap with itself across patients is what context alone
leaves. Random parts of its patients stand in for senses. The mean Δ of such cuts is zero by
construction, so it is not reported; their spread is: a Δ that random cuts of words with one
meaning reach as well needs no senses. An ambiguous term is compared with the controls nearest
in frequency, cut into parts of as many patients as its senses have (scaled down for a control
of fewer patients, whose cuts then spread wider). The floor is the overlap of two different
terms, below which no two senses need fall.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from medsae.polysemy.columns import CONTROL, FLOOR
from medsae.polysemy.jaccard import overlaps, resampled_overlaps
from medsae.polysemy.overlap import GroupedOverlap, grouped_overlap
from medsae.polysemy.sparse import LemmaLatents, SenseSample, codes_of
from medsae.statistics import cluster_weights, percentile_interval, stream

N_CUTS = 200
"""Random cuts of a control's patients."""

N_MATCHED = 5
"""Controls nearest in frequency that a term is compared with."""

FLOOR_OCCURRENCES = 60
"""Occurrences of each term that enter the comparison of different terms."""

MIN_PATIENTS = 4

Cuts = dict[tuple[str, int], list[NDArray[np.float64]]]
"""(ambiguous term, k) -> Δ of the cuts of each control that it is compared with."""


def match_controls(
    terms: Mapping[str, int], controls: Mapping[str, int]
) -> dict[str, tuple[str, ...]]:
    """The `N_MATCHED` ``controls`` nearest to each of ``terms`` in occurrences, by ratio."""
    names = sorted(controls)
    frequency = np.log([controls[name] for name in names])
    matched = {}
    for term, n in terms.items():
        near = np.argsort(np.abs(frequency - np.log(n)), kind="stable")[:N_MATCHED]
        matched[term] = tuple(names[index] for index in np.sort(near))
    return matched


def patients_by_sense(sample: SenseSample) -> tuple[int, ...]:
    """How many patients have each sense most often."""
    patient = sample.latents.patient
    counts = np.zeros((int(patient.max()) + 1, len(sample.senses)))
    np.add.at(counts, (patient, sample.label), 1)
    return tuple(np.bincount(counts.argmax(1), minlength=len(sample.senses)).tolist())


def control_rows(
    lemma: LemmaLatents,
    depths: list[int],
    designs: Mapping[str, tuple[int, ...]],
    cuts: Cuts,
    statistics: dict,
) -> Iterator[dict]:
    """Overlap of a control with itself, and the spread of Δ over random halves of its patients.

    ``designs``: patients by sense of the terms that are compared with it; the Δ of cuts like
    those are added to ``cuts``.
    """
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
    halves = half_cuts(n_patients, stream(seed, "splits", lemma.lemma))
    like = {
        term: random_cuts(sizes, n_patients, stream(seed, "cuts", lemma.lemma, term))
        for term, sizes in designs.items()
        if n_patients >= 2 * len(sizes)
    }
    one = np.zeros(len(lemma), dtype=np.int8)
    for k in depths:
        grouped = grouped_overlap(lemma.codes, patient, one, k)
        whole, resampled = (
            resampled_overlaps(grouped, 1, each).within
            for each in (np.ones((1, n_patients)), weights)
        )
        low, high = percentile_interval(resampled)
        for term, parts in like.items():
            deltas = cut_deltas(grouped, parts, len(designs[term]))
            cuts.setdefault((term, k), []).append(deltas)
        yield base | {
            "k": k,
            "within": float(whole[0]),
            "within_low": float(low),
            "within_high": float(high),
            **chance_delta(cut_deltas(grouped, halves, 2)),
        }


def chance_delta(deltas: NDArray[np.float64]) -> dict[str, float | int]:
    """The columns that say how far Δ of random cuts [n] lies from zero."""
    low, high = percentile_interval(deltas)
    return {
        "chance_delta_low": float(low),
        "chance_delta_high": float(high),
        "chance_delta_95": float(np.quantile(np.abs(deltas), 0.95)),
        "n_cuts": len(deltas),
    }


def random_cuts(
    sizes: Sequence[int], n_patients: int, rng: np.random.Generator
) -> NDArray[np.int8]:
    """Parts 0 … S − 1 [N_CUTS, n_patients] of ``sizes`` [S] random patients; −1: in none.

    Where the patients are too few the parts shrink in proportion, to two patients at least.
    Raises ``ValueError`` with fewer than two patients for each part.
    """
    if n_patients < 2 * len(sizes):
        raise ValueError(f"{n_patients} patients cannot be cut into {len(sizes)} parts of two")
    wanted = np.maximum(sizes, 2)
    if wanted.sum() > n_patients:
        wanted = np.maximum(wanted * n_patients // wanted.sum(), 2)
        while wanted.sum() > n_patients:
            wanted[wanted.argmax()] -= 1
    part = np.full(n_patients, -1, dtype=np.int8)
    part[: wanted.sum()] = np.repeat(np.arange(len(wanted)), wanted)
    return part[rng.random((N_CUTS, n_patients)).argsort(axis=1)]


def half_cuts(n_patients: int, rng: np.random.Generator) -> NDArray[np.int8]:
    """Random halves 0 and 1 [N_CUTS, n_patients] of all patients."""
    return random_cuts((n_patients // 2, n_patients - n_patients // 2), n_patients, rng)


def cut_deltas(
    grouped: GroupedOverlap, cuts: NDArray[np.int8], n_parts: int
) -> NDArray[np.float64]:
    """Δ [R] of parts of the patients; ``grouped`` has one group per patient, ``cuts`` [R, P]."""
    parts = [(cuts == part).astype(np.float64) for part in range(n_parts)]
    sums = np.empty((len(cuts), n_parts, n_parts))
    pairs = np.empty_like(sums)
    sizes = grouped.sizes.astype(np.float64)
    for s in range(n_parts):
        product = parts[s] @ grouped.sums
        for t in range(n_parts):
            sums[:, s, t] = (product * parts[t]).sum(1)
            same = (parts[s] * parts[t]) @ sizes**2
            pairs[:, s, t] = (parts[s] @ sizes) * (parts[t] @ sizes) - same
    return overlaps(sums, pairs).delta


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
