"""Permutation of labels that come in clusters (patients), clusters of mixed labels included.

Under the null hypothesis a patient's sequence of labels says nothing about the patient's
data, and patients are exchangeable. So the unit that is exchanged is the patient's whole
label sequence, in note order: a patient with both senses hands on a mixed sequence. This
keeps, in every permuted data set, how labels cluster within patients, how often patients
have both senses and where in the notes each stands; labels are never shuffled among the
occurrences of all patients, which would treat a patient's ten occurrences as ten patients.

Sequences are exchanged among patients with the same number of occurrences, which is exact.
Sizes too rare to permute are pooled with the next ones; there a sequence is stretched or
shortened to its new patient: occurrence i of n takes the donor's label ⌊(i + ½) · m / n⌋ of
m. (Block exchange: Winkler et al. 2015, NeuroImage 123.)

Where all patients that may exchange have the same sequence, no permutation differs from the
data: there is no null distribution, and a p of 1 would pass for evidence of no effect. Such a
test is not estimable (`exchange_changes`, `NOT_EXCHANGEABLE`).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

MIN_STRATUM = 10
"""Clusters that a stratum of sizes needs before it is permuted on its own."""

BLOCK = 500
"""Permutations made at once; fixed, because the random stream depends on it."""

NOT_EXCHANGEABLE = "not testable: exchanging labels among patients changes nothing"
"""Why there is no p where `exchange_changes` is false."""


def cluster_strata(
    sizes: NDArray[np.integer], min_clusters: int = MIN_STRATUM
) -> list[NDArray[np.intp]]:
    """Clusters that may exchange labels: indices grouped by size, rare sizes pooled."""
    order = np.argsort(sizes, kind="stable")
    starts = np.flatnonzero(np.diff(sizes[order], prepend=-1))
    strata: list[NDArray[np.intp]] = []
    pending = np.empty(0, dtype=np.intp)
    for group in np.split(order, starts[1:]):
        pending = np.concatenate([pending, group])
        if len(pending) >= min_clusters:
            strata.append(pending)
            pending = np.empty(0, dtype=np.intp)
    if len(pending):
        if strata:
            strata[-1] = np.concatenate([strata[-1], pending])
        else:
            strata.append(pending)
    return strata


def exchange_changes(labels: NDArray[np.integer], clusters: NDArray[np.integer]) -> bool:
    """Whether any of ``permuted_labels`` (same arguments) can differ from ``labels``."""
    sizes = np.bincount(clusters)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    for stratum in cluster_strata(sizes):
        by_size: dict[int, NDArray] = {}
        for cluster in stratum:
            own = labels[first[cluster] : first[cluster] + sizes[cluster]]
            if not np.array_equal(by_size.setdefault(len(own), own), own):
                return True
        for n, own in by_size.items():
            for m, donor in by_size.items():
                if not np.array_equal(donor[_stretched(np.arange(n), n, m)], own):
                    return True
    return False


def _stretched(position: NDArray, n: NDArray | int, m: NDArray | int) -> NDArray:
    """Place in a sequence of ``m`` that stands for ``position`` in one of ``n``."""
    return (2 * position + 1) * m // (2 * n)


def permuted_labels(
    labels: NDArray[np.integer],
    clusters: NDArray[np.integer],
    n_permutations: int,
    rng: np.random.Generator,
) -> Iterator[NDArray[np.int8]]:
    """Yield permuted copies of ``labels`` [n] in blocks [b, n], ``n_permutations`` rows in all.

    ``clusters`` [n] holds codes 0 … C − 1 in ascending order (rows sorted by cluster);
    ``labels`` [n] small non-negative integers. Raises ``ValueError`` if clusters are not
    sorted.
    """
    if len(labels) == 0 or (np.diff(clusters) < 0).any():
        raise ValueError("permuted_labels needs at least one row, and rows sorted by cluster")
    compact = np.asarray(labels, dtype=np.int8)
    sizes = np.bincount(clusters)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    position = np.arange(len(labels)) - first[clusters]
    strata = cluster_strata(sizes)
    for start in range(0, n_permutations, BLOCK):
        n = min(BLOCK, n_permutations - start)
        donors = np.empty((n, len(sizes)), dtype=np.int32)
        for stratum in strata:
            donors[:, stratum] = stratum[rng.random((n, len(stratum))).argsort(axis=1)]
        donor = donors[:, clusters]
        offset = _stretched(position, sizes[clusters], sizes[donor])
        yield compact[first[donor] + offset]


def pvalue_greater(n_reaching: NDArray[np.integer] | int, n_permutations: int) -> NDArray | float:
    """(1 + permutations that reach the observed value) / (1 + permutations)."""
    return (1 + n_reaching) / (1 + n_permutations)
