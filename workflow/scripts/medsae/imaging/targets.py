"""The questions that linear probes are asked, as labels per slice."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medsae.imaging import columns as col
from medsae.imaging.concepts import AGE, AGE_GROUPS, MODALITY, ORGAN, PLANE, SEX, Concepts
from medsae.statistics import codes_of

TASKS = {MODALITY: "modality", PLANE: "orientation", SEX: "sex", AGE: "age group", ORGAN: "organ"}
"""Families of concepts as tasks; a metadata column is a task of its own name."""

MIN_CLASS = 5
"""Slices of each class that a probe needs, in training and in judging."""

MIN_SCANS = 2
"""Scans that each class must come from, unless one scan shows both: two scans always differ."""


@dataclass(frozen=True)
class Targets:
    """``positive``, ``used`` bool [n, T] (not used: unknown); ``task``, ``name`` of each."""

    task: tuple[str, ...]
    name: tuple[str, ...]
    positive: NDArray[np.bool_]
    used: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.name)


def targets_of(concepts: Concepts) -> Targets:
    """Every question the concepts allow.

    Age is the youngest group against the oldest, as published. Of a family with two values,
    one value is asked for: the other is its mirror.
    """
    task: list[str] = []
    name: list[str] = []
    positive: list[NDArray] = []
    used: list[NDArray] = []

    def add(family: str, label: str, yes: NDArray, known: NDArray) -> None:
        task.append(TASKS.get(family, family))
        name.append(label)
        positive.append(yes & known)
        used.append(known)

    for family in dict.fromkeys(concepts.families.tolist()):
        members = concepts.family(family)
        if family == AGE:
            ends = [f"{AGE}:{AGE_GROUPS[0]}", f"{AGE}:{AGE_GROUPS[-1]}"]
            if all(end in concepts.names for end in ends):
                young, old = (concepts.present[:, concepts.index(end)] for end in ends)
                add(family, f"{AGE}:{AGE_GROUPS[0]} against {AGE_GROUPS[-1]}", young, young | old)
            continue
        if family != ORGAN and len(members) == 2:
            members = members[:1]
        for member in members:
            add(
                family,
                concepts.names[member],
                concepts.present[:, member],
                concepts.known[:, member],
            )
    n = len(concepts.present)
    empty = np.zeros((n, 0), dtype=bool)
    return Targets(
        tuple(task),
        tuple(name),
        np.stack(positive, 1) if positive else empty,
        np.stack(used, 1) if used else empty,
    )


def not_estimable(
    targets: Targets, slices: pl.DataFrame, rows: NDArray[np.integer], purpose: str
) -> list[str | None]:
    """Why each target cannot be used on ``rows`` for ``purpose`` ("train"); None if it can."""
    scan = codes_of(slices[col.SCAN][rows])
    reasons: list[str | None] = []
    for t in range(len(targets)):
        used, yes = targets.used[rows, t], targets.positive[rows, t]
        sides = {"with": used & yes, "without": used & ~yes}
        scans = {label: np.unique(scan[here]) for label, here in sides.items()}
        within = len(np.intersect1d(scans["with"], scans["without"])) > 0
        reason = None
        for label, here in sides.items():
            if here.sum() < MIN_CLASS or (len(scans[label]) < MIN_SCANS and not within):
                reason = f"{purpose}: {here.sum()} slices of {len(scans[label])} scans {label} it"
                break
        reasons.append(reason)
    return reasons
