"""Halves of patients: what is found or chosen on one is confirmed on the other."""

import numpy as np
from numpy.typing import NDArray

from medsae.polysemy.sparse import SenseSample
from medsae.statistics import stream


def deal_patients(
    patient: NDArray[np.integer], label: NDArray[np.integer], n_parts: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Part 0 … n_parts − 1 of each occurrence [n]: patients dealt out, balanced by sense.

    ``patient`` [n] holds codes 0 … P − 1. Patients are shuffled within groups of one most
    frequent sense and dealt out in turn, so that every part holds every sense that at least
    ``n_parts`` patients have most.
    """
    counts = np.zeros((int(patient.max()) + 1, int(label.max()) + 1))
    np.add.at(counts, (patient, label), 1)
    main = counts.argmax(axis=1)
    part = np.empty(len(main), dtype=np.intp)
    part[np.lexsort((rng.random(len(main)), main))] = np.arange(len(main)) % n_parts
    return part[patient]


def split_patients(
    patient: NDArray[np.integer], label: NDArray[np.integer], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Mask [n] of the occurrences of a random half of the patients, balanced by sense."""
    return deal_patients(patient, label, 2, rng) == 0


def discovery_half(sample: SenseSample, seed: int) -> NDArray[np.bool_]:
    """Mask [n]: the occurrences that latents are discovered on, and probes trained on."""
    latents = sample.latents
    return split_patients(latents.patient, sample.label, stream(seed, "halves", latents.lemma))


def halve_patients(
    patient: NDArray[np.integer], cell: NDArray[np.integer], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Mask [P] of a random half of all patients, one for all terms and senses.

    ``patient`` and ``cell`` [n]: codes from 0 of each occurrence's patient and of its term and
    sense. Patients come in random order, each to the half that has had less of the patient's
    cells so far, rare cells weighing more (minimisation: Pocock and Simon 1975, Biometrics 31).
    """
    has = np.zeros((int(patient.max()) + 1, int(cell.max()) + 1))
    has[patient, cell] = 1
    has /= np.maximum(has.sum(0), 1)
    lead = np.zeros(has.shape[1])
    first = np.empty(len(has), dtype=bool)
    for each in rng.permutation(len(has)):
        tilt = lead @ has[each]
        first[each] = tilt < 0 or (tilt == 0 and rng.random() < 0.5)
        lead += has[each] if first[each] else -has[each]
    return first
