"""Slices found by words: query → described features → slices.

Templated queries combine what test slices are known to show (modality, plane, organs, sex,
age). A picker chooses three described features for each query, modality before plane before
anatomy before demographics; the query's vector is their mean activations (when active, on the
training slices); slices of the test split are ranked by the cosine with their features.

A slice is relevant if it shows everything that was asked for; each attribute is also judged
on its own. Beside the picked features: as many described features at random, since more
features find more slices, and the prevalence, which is what random order finds.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array

from medsae.imaging import columns as col
from medsae.imaging.concepts import AGE, MODALITY, ORGAN, PLANE, SEX, Concepts
from medsae.imaging.fingerprint import without_constant
from medsae.imaging.interpret.ask import CachedModel
from medsae.imaging.interpret.prompts import PICK, PICK_VERSION, parse_features
from medsae.imaging.phrases import concepts_in, in_priority, sentence
from medsae.imaging.result_columns import LANGUAGE_RETRIEVAL
from medsae.io import progress
from medsae.statistics import cluster_mean, ndcg_at, precision_at, stream

TEMPLATES = (
    (MODALITY, PLANE, ORGAN),
    (MODALITY, ORGAN),
    (PLANE, ORGAN),
    (MODALITY, PLANE),
    (MODALITY, ORGAN, SEX),
    (MODALITY, PLANE, ORGAN, SEX),
    (MODALITY, ORGAN, AGE),
    (ORGAN,),
)
"""Families that a query names; one concept of each."""

MAX_QUERIES = 400
N_PICKED = 3
TOP = 10
ATTEMPTS = 3
ALL_OF_THEM = "all"
PICKED, RANDOM = "picked", "random features"


@dataclass(frozen=True)
class Query:
    """A question in words and the concepts that a relevant slice shows."""

    text: str
    concepts: tuple[str, ...]


def templated_queries(
    concepts: Concepts, rows: NDArray[np.integer], seed: int, limit: int = MAX_QUERIES
) -> list[Query]:
    """Queries that at least one of ``rows`` answers, and not all do; sorted by their text.

    If there are more than ``limit``, each template keeps its share of them.
    """
    present, known = concepts.present[rows], concepts.known[rows]
    found: list[list[Query]] = []
    for template in TEMPLATES:
        queries = []
        for members in itertools.product(*(concepts.family(family) for family in template)):
            chosen = list(members)
            judged = known[:, chosen].all(1)
            relevant = present[:, chosen].all(1) & judged
            if relevant.any() and relevant.sum() < judged.sum():
                names = tuple(in_priority([concepts.names[i] for i in chosen]))
                queries.append(Query(sentence(list(names)), names))
        found.append(sorted(queries, key=lambda query: query.text))
    total = sum(map(len, found))
    if total > limit:
        for place, queries in enumerate(found):
            share = max(1, round(limit * len(queries) / total))
            rng = stream(seed, "queries", place)
            chosen = sorted(rng.choice(len(queries), min(share, len(queries)), replace=False))
            found[place] = [queries[i] for i in chosen] if queries else []
    return sorted(itertools.chain(*found), key=lambda query: query.text)


class Picker(Protocol):
    """Chooses features for a query; None where it gave no usable answer."""

    identity: str

    def pick(self, query: str) -> list[int] | None:
        """Up to three feature numbers."""
        ...


class LabelPicker:
    """For each concept that the query's words name, the feature whose description fits best.

    Fit: descriptions that name the concept, those that name little else first; ties go to the
    feature that was selected earlier.
    """

    identity = "labels"

    def __init__(self, descriptions: pl.DataFrame, names: tuple[str, ...]) -> None:
        read = descriptions.filter(pl.col("description").is_not_null())
        self._names = names
        self._named = {
            feature: set(concepts_in(text, names))
            for feature, text in read.select("feature_idx", "description").iter_rows()
        }

    def pick(self, query: str) -> list[int] | None:
        """Features in the order of priority of the concepts that they stand for."""
        wanted = concepts_in(query, self._names)
        picked: list[int] = []
        for concept in wanted:
            fitting = [
                (len(named - set(wanted)), -len(named & set(wanted)), place, feature)
                for place, (feature, named) in enumerate(self._named.items())
                if concept in named and feature not in picked
            ]
            if fitting and len(picked) < N_PICKED:
                picked.append(min(fitting)[3])
        return picked or None


class ModelPicker:
    """A language model that reads the query and the catalogue of descriptions."""

    def __init__(self, model: CachedModel, descriptions: pl.DataFrame) -> None:
        self.identity = model.identity
        self._model = model
        read = descriptions.filter(pl.col("description").is_not_null())
        self._allowed = read["feature_idx"].to_list()
        self._catalogue = "\n".join(
            f"{feature}: {text}"
            for feature, text in read.select("feature_idx", "description").iter_rows()
        )

    def pick(self, query: str) -> list[int] | None:
        """Three features; None if three attempts gave nothing that can be read."""
        n = min(N_PICKED, len(self._allowed))
        prompt = PICK.format(query=query, n=n, catalogue=self._catalogue)
        for attempt in range(ATTEMPTS):
            answer = self._model.ask(prompt, [], f"{PICK_VERSION}, attempt {attempt + 1}")
            found = parse_features(answer, self._allowed, n)
            if found is not None:
                return found
        return None


def language_retrieval(
    queries: Sequence[Query],
    picker: Picker,
    described: Sequence[int],
    features: csr_array,
    mean_active: NDArray[np.floating],
    concepts: Concepts,
    slices: pl.DataFrame,
    seed: int,
) -> pl.DataFrame:
    """``language_retrieval.csv``: per query and method, all attributes together and each alone.

    ``features`` [n, L], ``concepts`` and ``slices`` hold the rows that are searched;
    ``mean_active`` [L] from the training slices. A query whose features cannot be read, or
    for which no description fits, finds nothing: its metrics are 0.
    """
    searched = without_constant(features)
    lengths = np.sqrt(np.asarray(searched.multiply(searched).sum(1), np.float64).ravel())
    keys, scan = slices[col.SLICE_KEY].to_numpy(), slices[col.SCAN].to_numpy()
    rows: list[dict[str, Any]] = []
    for number, query in enumerate(progress(queries, "queries")):
        rng = stream(seed, "random features", query.text)
        chosen = picker.pick(query.text)
        # where the picker fails the control keeps the chance that the picker had
        n = len(chosen) if chosen else N_PICKED
        at_random = rng.permutation(np.asarray(described))[:n].tolist()
        for method, picked in ((PICKED, chosen), (RANDOM, at_random)):
            order = np.empty(0, np.int64)
            if picked:
                vector = mean_active[picked]
                score = (searched[:, picked] @ vector) / np.maximum(lengths, 1e-12)
                # slices that none of the features is active on are not found
                order = np.argsort(-score, kind="stable")[: int((score > 0).sum())]
            base = {
                "query_id": number,
                "query": query.text,
                "method": method,
                "features": ";".join(map(str, picked or [])),
                "n_scans": len(set(scan[order[:TOP]])),
                "parsed": picked is not None,
                "results": ";".join(keys[order[:TOP]]),
            }
            rows += [base | measured for measured in _measure(query, order, concepts)]
    return pl.DataFrame(rows, infer_schema_length=None).select(LANGUAGE_RETRIEVAL)


def _measure(query: Query, order: NDArray[np.integer], concepts: Concepts) -> list[dict[str, Any]]:
    chosen = [concepts.index(name) for name in query.concepts]
    asked = [(ALL_OF_THEM, chosen)]
    asked += [(concepts.names[i].split(":", 1)[0], [i]) for i in chosen]
    out = []
    for attribute, members in asked:
        judged = np.all(concepts.known[:, members], axis=1)
        relevant = np.logical_and(np.all(concepts.present[:, members], axis=1), judged)
        # graded: a slice that shows two of three things asked for is better than none
        gain: NDArray = (concepts.present[:, members] & judged[:, None]).mean(1)
        found = order[judged[order]]
        hits = np.zeros((1, TOP), dtype=bool)
        gains = np.zeros((1, TOP))
        hits[0, : len(found[:TOP])] = relevant[found[:TOP]]
        gains[0, : len(found[:TOP])] = gain[found[:TOP]]
        k = min(TOP, int(judged.sum()))
        out.append(
            {
                "attribute": attribute,
                "p_at_10": float(precision_at(hits, k)[0]),
                "ndcg_at_10": float(ndcg_at(gains, gain[judged][None, :], TOP)[0]),
                "prevalence": float(relevant.sum() / judged.sum()),
                "n_relevant": int(relevant.sum()),
            }
        )
    return out


def language_summary(table: pl.DataFrame, n_bootstrap: int, seed: int) -> pl.DataFrame:
    """Mean P@10, nDCG@10 and lift over prevalence per method and attribute.

    Intervals resample queries; they say nothing about other scans.
    """
    rows = []
    table = table.with_columns(gain_at_10=pl.col("p_at_10") - pl.col("prevalence"))
    for part in table.partition_by("method", "attribute", maintain_order=True):
        method, attribute = part["method"][0], part["attribute"][0]
        row: dict[str, Any] = {
            "method": method,
            "attribute": attribute,
            "n_queries": part.height,
            "prevalence": part["prevalence"].mean(),
            "parsed": part["parsed"].mean(),
        }
        for measure in ("p_at_10", "ndcg_at_10", "gain_at_10"):
            values = part[measure].to_numpy()
            rng = stream(seed, "language", method, attribute, measure)
            mean, low, high = cluster_mean(values, np.arange(len(values)), n_bootstrap, rng)
            row |= {measure: mean, f"{measure}_low": low, f"{measure}_high": high}
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)
