"""Pairs of occurrences for the mixed-effects models over pairs, weighed as Δ weighs them.

Δ = mean_s W(s) − mean_{s<s'} C(s, s') counts every sense alike, however often it occurs. Drawn
from all pairs at random, a sense of n occurrences would come with a weight of n². So the same
number of pairs is drawn of each sense, and the same of each two senses: as many as the one with
the fewest pairs has, up to a limit. Means over the rows of a term are then its W and C.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from medsae.polysemy.overlap import top_sets
from medsae.polysemy.sparse import SenseSample

MAX_PAIRS = 200
"""Pairs per term and pair type, shared out among its senses."""

DRAWS = 40
"""Pairs drawn for each that is wanted, where there are too many to list them all."""

MODELLED_K = 10
"""Overlap of so many of the largest latents is modelled in R, besides that of all."""

WITHIN, CROSS = "within", "cross"

Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]


def pair_rows(sample: SenseSample, rng: np.random.Generator) -> list[dict]:
    """Random pairs of different patients, as many of each sense and of each two senses."""
    senses = range(len(sample.senses))
    members = [np.flatnonzero(sample.label == sense) for sense in senses]
    patient = sample.latents.patient
    rows: list[dict] = []
    for pair_type, sides in (
        (WITHIN, [(sense, sense) for sense in senses]),
        (CROSS, list(combinations(senses, 2))),
    ):
        limit = max(1, MAX_PAIRS // len(sides))
        drawn = [distinct_pairs(members[s], members[t], patient, limit, rng) for s, t in sides]
        fewest = min(len(a) for a, _ in drawn)
        for a, b in drawn:
            rows += _rows(sample, pair_type, a[:fewest], b[:fewest])
    return rows


def distinct_pairs(
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    patient: NDArray[np.integer],
    limit: int,
    rng: np.random.Generator,
) -> Pairs:
    """Up to ``limit`` random pairs of a row of ``first`` and one of ``second``, none twice.

    ``first`` and ``second`` are the same rows, or have none in common; the two of a pair come
    from different patients.
    """
    same = np.array_equal(first, second)
    n, m = len(first), len(second)
    if n * m <= DRAWS * limit:
        places = rng.permutation(n * m)
    else:
        places = rng.permutation(np.unique(rng.integers(0, n * m, DRAWS * limit)))
    i, j = np.divmod(places, m)
    if same:
        # a pair once, whichever way round it was drawn
        _, once = np.unique(np.minimum(i, j) * m + np.maximum(i, j), return_index=True)
        once = np.sort(once)
        i, j = np.minimum(i, j)[once], np.maximum(i, j)[once]
    a, b = first[i], second[j]
    apart = np.flatnonzero(patient[a] != patient[b])[:limit]
    return a[apart], b[apart]


def _rows(sample: SenseSample, pair_type: str, a: NDArray, b: NDArray) -> list[dict]:
    lemma, senses = sample.latents, np.array(sample.senses)
    documents, patients = lemma.table["doc_id"], lemma.table["patient_id"]
    columns = {
        "sense_a": senses[sample.label[a]].tolist(),
        "sense_b": senses[sample.label[b]].tolist(),
        "jaccard_at_10": paired_jaccard(lemma.codes, a, b, MODELLED_K).tolist(),
        "jaccard": paired_jaccard(lemma.codes, a, b, None).tolist(),
        "doc_a": documents[a].to_list(),
        "doc_b": documents[b].to_list(),
        "patient_a": patients[a].to_list(),
        "patient_b": patients[b].to_list(),
    }
    base = {"lemma": lemma.lemma, "kind": lemma.kind, "pair_type": pair_type}
    return [
        base | dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
    ]


def paired_jaccard(
    codes: csr_array, a: NDArray[np.intp], b: NDArray[np.intp], k: int | None
) -> NDArray[np.float64]:
    """J of the rows ``a`` [n] of ``codes`` with the rows ``b`` [n], of their ``k`` largest."""
    sets = top_sets(codes, k)
    shared = (sets.common[a] * sets.common[b]).sum(1)
    shared = shared + np.asarray(sets.rare[a].multiply(sets.rare[b]).sum(axis=1)).ravel()
    return shared / np.maximum(sets.sizes[a] + sets.sizes[b] - shared, 1)
