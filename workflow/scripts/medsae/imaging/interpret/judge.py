"""Judges: which of several descriptions fits these slices? They see pixels, never metadata."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medsae.imaging.artifacts import Embeddings, SliceImages
from medsae.imaging.concepts import Concepts
from medsae.imaging.interpret.ask import CachedModel
from medsae.imaging.interpret.prompts import JUDGE, JUDGE_VERSION, Description, parse_ranking
from medsae.imaging.phrases import concepts_in
from medsae.imaging.probes import scaling_of
from medsae.statistics import balanced_weights, fit_elastic_net

MIN_CLASS = 5


class Judge(Protocol):
    """Ranks descriptions by their fit to slices; None where it gave no usable answer."""

    identity: str

    def rank(
        self, rows: NDArray[np.integer], candidates: Sequence[Description]
    ) -> list[int] | None:
        """Indices into ``candidates``, the best fit first."""
        ...


class ModelJudge:
    """A vision-language model that is shown the slices and the descriptions."""

    def __init__(self, model: CachedModel, images: SliceImages) -> None:
        self.identity = model.identity
        self._model, self._images = model, images

    def rank(
        self, rows: NDArray[np.integer], candidates: Sequence[Description]
    ) -> list[int] | None:
        """The model's order; None if its answer cannot be read."""
        lines = [f"{number}. {each.description}" for number, each in enumerate(candidates, 1)]
        prompt = JUDGE.format(n=len(rows), candidates="\n".join(lines))
        pixels = [self._images.pixels(row) for row in np.asarray(rows).tolist()]
        answer = self._model.ask(prompt, pixels, JUDGE_VERSION)
        return parse_ranking(answer, len(candidates))


class EmbeddingJudge:
    """Reads concepts off another encoder's embeddings, by probes fitted on training slices.

    A description is the concepts it names; its fit, their mean logit over the slices, each
    concept's logits standardised on the training slices. The judge never sees the features,
    the encoder they come from, or what is known about the slices it judges.
    """

    def __init__(
        self,
        name: str,
        store: Embeddings,
        concepts: Concepts,
        train: NDArray[np.integer],
    ) -> None:
        self.identity = f"probes of {name}"
        self._store = store
        known, present = concepts.known[train], concepts.present[train]
        enough = ((known & present).sum(0) >= MIN_CLASS) & ((known & ~present).sum(0) >= MIN_CLASS)
        chosen = np.flatnonzero(enough)
        self.names = tuple(concepts.names[index] for index in chosen)
        x = store.rows(train)
        self._scaling = scaling_of(x)
        scaled = self._scaling(x)
        if len(chosen):
            weights = balanced_weights(present[:, chosen], known[:, chosen])
            fits = fit_elastic_net(scaled, present[:, chosen], weights)
            logits = scaled @ fits.coef + fits.intercept
            self._coef, self._intercept = fits.coef, fits.intercept
            self._mean, self._deviation = logits.mean(0), np.maximum(logits.std(0), 1e-6)

    def rank(
        self, rows: NDArray[np.integer], candidates: Sequence[Description]
    ) -> list[int] | None:
        """The order of fit; a description without a concept that the judge knows comes last."""
        if not self.names:
            return None
        x = self._scaling(self._store.rows(rows))
        logits = (x @ self._coef + self._intercept - self._mean) / self._deviation
        evidence = dict(zip(self.names, logits.mean(0).tolist(), strict=True))
        scores = []
        for candidate in candidates:
            named = concepts_in(candidate.description, self.names)
            scores.append(np.mean([evidence[name] for name in named]) if named else -np.inf)
        return np.argsort(-np.array(scores), kind="stable").tolist()
