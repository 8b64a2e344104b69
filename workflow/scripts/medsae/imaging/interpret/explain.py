"""Explainers: from a feature's slices to words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medsae.imaging import columns as col
from medsae.imaging.artifacts import SliceImages
from medsae.imaging.concepts import ORGAN, Concepts
from medsae.imaging.interpret.ask import CachedModel
from medsae.imaging.interpret.prompts import NAME, NAME_VERSION, Description, parse_description
from medsae.imaging.monosemanticity import lifts
from medsae.imaging.phrases import in_priority, sentence, words_of

MIN_LIFT = 0.5
"""A concept belongs to a description from this lift on: half of the way from prevalence to 1."""

MAX_ORGANS = 2
METADATA = (col.MODALITY, col.PLANE, col.STUDY_TYPE, col.SEX, col.AGE, col.ORGANS)


@dataclass(frozen=True)
class Evidence:
    """What an explainer gets: rows of ``slices.parquet``, the strongest first.

    ``pool``: up to 20 slices of as many scans; ``shown``: the five most diverse of them.
    """

    feature: int
    pool: NDArray[np.int64]
    shown: NDArray[np.int64]


class Explainer(Protocol):
    """Names a feature; None where it gave no usable answer."""

    identity: str
    version: str

    def describe(self, evidence: Evidence) -> Description | None:
        """The description of the feature behind ``evidence``."""
        ...


class LabelExplainer:
    """Names a feature by the labels and metadata that its slices share, and nothing else.

    Of each family the concept with the largest lift among the pool's slices, from `MIN_LIFT`
    on; of organs two. If none reaches it, the single best one, provided it is above chance.
    """

    identity = "labels"
    version = "labels-1"

    def __init__(self, concepts: Concepts, prevalence: NDArray[np.float64]) -> None:
        self._concepts = concepts
        self._prevalence = prevalence

    def describe(self, evidence: Evidence) -> Description | None:
        """The concepts with the largest lifts, as a sentence."""
        lift = lifts(self._concepts, self._prevalence, evidence.pool[None, :])[1][0]
        lift = np.where(np.isnan(lift), -np.inf, lift)
        chosen: list[int] = []
        taken: dict[str, int] = {}
        families = self._concepts.families
        for index in np.argsort(-lift, kind="stable").tolist():
            family = str(families[index])
            full = taken.get(family, 0) >= (MAX_ORGANS if family == ORGAN else 1)
            if lift[index] <= 0 or (chosen and lift[index] < MIN_LIFT):
                break
            if not full:
                chosen.append(index)
                taken[family] = taken.get(family, 0) + 1
        if not chosen:
            return None
        names = in_priority([self._concepts.names[index] for index in chosen])
        return Description(", ".join(words_of(name) for name in names), sentence(names))


class ModelExplainer:
    """Names a feature by asking a vision-language model about slices and their metadata."""

    def __init__(self, model: CachedModel, images: SliceImages, slices: pl.DataFrame) -> None:
        self.identity = model.identity
        self.version = NAME_VERSION
        self._model, self._images, self._slices = model, images, slices

    def describe(self, evidence: Evidence) -> Description | None:
        """The model's description; None if its answer cannot be read."""
        shown = evidence.shown.tolist()
        prompt = NAME.format(n=len(shown), metadata=metadata_lines(self._slices, shown))
        pixels = [self._images.pixels(row) for row in shown]
        return parse_description(self._model.ask(prompt, pixels, self.version))


def metadata_lines(slices: pl.DataFrame, rows: Sequence[int]) -> str:
    """One numbered line per slice: what is known, never who it is."""
    present = [name for name in METADATA if name in slices.columns]
    lines = []
    for number, row in enumerate(slices[list(rows)].select(present).iter_rows(named=True), 1):
        cells = {
            name: ", ".join(value) if isinstance(value, list) else value
            for name, value in row.items()
            # no structure of the masks is seen: of what they do not cover nothing is known
            if value is not None and value != []
        }
        lines.append(f"{number}. " + "; ".join(f"{name}: {value}" for name, value in cells.items()))
    return "\n".join(lines)
