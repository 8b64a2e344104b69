"""Δ of a term under one condition and another, with the same resamples of patients under both.

What the conditions share (the notes, the patients, how clear a sense is) cancels in the difference
of two Δ.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from medsae.polysemy.jaccard import observed_overlaps, resampled_overlaps
from medsae.polysemy.overlap import grouped_overlap
from medsae.polysemy.sparse import SenseSample
from medsae.statistics import cluster_weights, percentile_interval, stream


@dataclass(frozen=True)
class Delta:
    """``value`` of the data and ``resampled`` [B]; of one term, each under the same patients."""

    value: float
    resampled: NDArray[np.float64]

    def minus(self, other: Self) -> "Delta":
        """The difference, resample by resample."""
        return Delta(self.value - other.value, self.resampled - other.resampled)

    def columns(self, name: str) -> dict[str, float]:
        """``name``, ``name_low`` and ``name_high``: the value and its 95% interval."""
        low, high = percentile_interval(self.resampled)
        return {name: self.value, f"{name}_low": float(low), f"{name}_high": float(high)}


def resampled_delta(sample: SenseSample, k: int, statistics: dict[str, int]) -> Delta:
    """Δ of the ``k`` strongest latents (``medsae.polysemy.jaccard``).

    ``statistics``: n_bootstrap, seed. Two samples of a term with the same patients are resampled
    alike.
    """
    patient, n_senses = sample.latents.patient, len(sample.senses)
    grouped = grouped_overlap(sample.latents.codes, patient, sample.label, k)
    rng = stream(statistics["seed"], "paired deltas", sample.latents.lemma)
    weights = cluster_weights(int(patient.max()) + 1, statistics["n_bootstrap"], rng)
    observed = float(observed_overlaps(grouped, n_senses).delta[0])
    return Delta(observed, resampled_overlaps(grouped, n_senses, weights).delta)
