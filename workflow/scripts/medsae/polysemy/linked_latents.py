"""Latents linked to one sense: they fire on occurrences of that sense more than on others.

Half of the patients discover, the other half confirms. Tested are all latents that fire in
at least ``MIN_DOCUMENTS`` notes of the discovering half and stay silent in as many, whatever
the sense (a prefilter that looks at labels would spoil the p-values). The statistic is the
difference of firing rates, rate(sense) − rate(other senses), one-sided; patients' label
sequences are permuted, all latents under the same permutations. q: Benjamini–Hochberg over
every lemma × sense × latent test of the SAE. A discovered latent (q ≤ 0.05) is confirmed if
the same test on the other patients has q ≤ 0.05 over the discovered ones. That test is run
for latents with p ≤ 0.05 only, among which all the discovered are. Where no permutation can
change anything (all patients have the same sequence of senses, or the latent fires always or
never) there is no p, and ``reason`` says so; such a test does not count for q. A term without a
latent to test has one row, without sense and latent, that says why.

Also given: the log odds ratio with Haldane's ½ added to each cell, and the p of the published
analysis (Fisher's exact test, which takes occurrences for independent).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from medsae.io import progress
from medsae.polysemy.columns import POLYSEMOUS, SENSE_LINKED, tidy
from medsae.polysemy.sparse import SenseSample, codes_of, read_lemmas, sense_sample, source_of
from medsae.polysemy.splits import discovery_half
from medsae.statistics import (
    NOT_EXCHANGEABLE,
    SequentialPvalues,
    benjamini_hochberg,
    exchange_changes,
    fisher_greater,
    permutations_needed,
    permuted_labels,
    stream,
)

MIN_DOCUMENTS = 5
"""Notes of the discovering half a latent must fire in, and be silent in, to be tested."""

ALPHA = 0.05

SHOWN_RATE, SHOWN_DIFFERENCE = 0.1, 0.05
"""Tests below these (presence rate, rate difference) count for q but are not listed."""

TIE = 1e-9

DIFFERENCES = 4_000_000
"""Latents × permutations whose differences of rates are held at once."""

DENSE_CELLS = 10_000_000
"""Latents × occurrences up to which their firing is multiplied as a dense matrix."""


def find_sense_linked_latents(latents: str | Path, statistics: dict[str, int]) -> pl.DataFrame:
    """Table sense_linked_latents of one SAE.

    ``statistics``: min_occurrences, n_permutations (of a test at least, unless it is reached
    often before), seed.
    """
    # How many permutations are needed depends on the number of tests, so they are counted first.
    n_tests = sum(
        len(candidates.latents) * candidates.n_testable
        for sample in _samples(latents, statistics)
        if isinstance(candidates := find_candidates(sample, statistics["seed"]), Candidates)
    )
    n_permutations = permutations_needed(n_tests, ALPHA, statistics["n_permutations"])
    parts: list[pl.DataFrame] = []
    untested: list[tuple[str, str]] = []
    for sample in progress(_samples(latents, statistics), "sense-linked latents"):
        tested = tested_latents(sample, statistics | {"n_permutations": n_permutations})
        if isinstance(tested, str):
            untested.append((sample.latents.lemma, tested))
        else:
            parts.append(tested)
    table = _judge(pl.concat(parts or [_empty()])).filter(
        (
            (pl.col("presence_rate") >= SHOWN_RATE)
            & (pl.col("presence_rate_diff") >= SHOWN_DIFFERENCE)
        )
        | pl.col("discovered")
    )
    why = {"lemma": pl.String, "reason": pl.String}
    table = pl.concat([table, pl.DataFrame(untested, why, orient="row")], how="diagonal")
    table = table.sort(
        ["lemma", "sense", "confirmed", "presence_rate_diff", "latent_id"],
        descending=[False, False, True, True, False],
    )
    smallest_q = min(1.0, n_tests / (1 + n_permutations)) if n_tests else None
    return tidy(
        table.with_columns(
            pl.lit(n_tests).cast(pl.Int64).alias("n_tests"),
            pl.lit(smallest_q, pl.Float64).alias("smallest_q"),
            **{name: pl.lit(value) for name, value in source_of(latents).items()},
        ).select(SENSE_LINKED)
    )


def _samples(latents: str | Path, statistics: dict[str, int]) -> Iterator[SenseSample]:
    for lemma in read_lemmas(latents, kinds=(POLYSEMOUS,)):
        yield sense_sample(lemma, statistics["min_occurrences"])


def sense_counts(
    firing: csr_array, label: NDArray[np.integer], n_senses: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Occurrences of each sense on which a latent fires [S, L], and of each sense at all [S]."""
    indicator = (label[None, :] == np.arange(n_senses)[:, None]).astype(np.float64)
    hits = np.asarray((firing.T @ indicator.T).T)
    return np.rint(hits).astype(np.int64), indicator.sum(1).astype(np.int64)


def permutation_pvalues(
    firing: csr_array,
    patient: NDArray[np.integer],
    label: NDArray[np.int8],
    n_senses: int,
    max_permutations: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """p of rate(sense) − rate(others) for each column of binary ``firing`` [n, L].

    Returns p and the permutations that each took, both [S, L]. Rows sorted by patient. A
    permutation without one of the two groups counts as reaching. p is NaN where no permutation
    can change the difference.
    """
    n_latents, n = firing.shape[1], len(label)
    tests = [SequentialPvalues(n_latents, max_permutations) for _ in range(n_senses)]
    untestable = np.array([not exchange_changes(label == s, patient) for s in range(n_senses)])
    if untestable.all():
        return np.full((n_senses, n_latents), np.nan), np.zeros((n_senses, n_latents), np.int64)
    columns = firing.T.tocsr().astype(np.float32)
    fires = np.asarray(columns.sum(axis=1)).astype(np.float64)
    hits, totals = sense_counts(firing, label, n_senses)
    observed = _difference(hits, totals[:, None], fires, n)

    def permuted(block: NDArray[np.int8], sense: int, latents: NDArray) -> NDArray[np.float64]:
        indicator = (block == sense).astype(np.float32)
        chosen = columns[latents]
        if chosen.shape[0] * n <= DENSE_CELLS:
            chosen = chosen.toarray()
        # counts stay below 2^24, so float32 sums are exact
        counts = np.asarray(chosen @ np.ascontiguousarray(indicator.T))
        total = indicator.sum(1, dtype=np.float64)
        return _difference(counts, total[None, :], fires[latents, None], n)

    def count(block: NDArray[np.int8], still: NDArray) -> None:
        first = permuted(block, 0, still)
        for sense, test in enumerate(tests):
            if sense == 0 or n_senses == 2:
                # of two senses the second's difference is the opposite of the first's
                difference = (first if sense == 0 else -first)[np.searchsorted(still, test.open)]
            else:
                difference = permuted(block, sense, test.open)
            test.update(~(difference < observed[sense, test.open, None] - TIE))

    for block in permuted_labels(label, patient, max_permutations, rng):
        begin = 0
        while begin < len(block):
            still = np.unique(np.concatenate([test.open for test in tests]))
            if not len(still):
                break
            end = begin + max(1, DIFFERENCES // len(still))
            count(block[begin:end], still)
            begin = end
        if not any(len(test.open) for test in tests):
            break
    fixed = untestable[:, None] | (fires == 0) | (fires == n)
    return (
        np.where(fixed, np.nan, np.stack([test.pvalues for test in tests])),
        np.where(fixed, 0, np.stack([test.permutations for test in tests])),
    )


def binary(codes: csr_array) -> csr_array:
    """1 where a latent fires."""
    ones = np.ones(codes.nnz, dtype=np.float32)
    return csr_array((ones, codes.indices, codes.indptr), shape=codes.shape)


def haldane_log_odds(hits: NDArray, total: int, other: NDArray, n_other: int) -> NDArray:
    """ln of the odds ratio of firing, ½ added to each of the four cells."""
    return np.log((hits + 0.5) * (n_other - other + 0.5) / ((total - hits + 0.5) * (other + 0.5)))


def _difference(hits: NDArray, total: NDArray, fires: NDArray, n: int) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return hits / total - (fires - hits) / (n - total)


@dataclass(frozen=True)
class Candidates:
    """What can be tested of one term: ``latents`` [L] and for each half their firing.

    ``halves``: discovery and confirmation, each (rows, binary firing [n, L], patient codes [n],
    sense codes [n]).
    """

    latents: NDArray[np.intp]
    fires: csr_array
    halves: dict[str, tuple[csr_array, NDArray[np.intp], NDArray[np.int8]]]

    @property
    def n_testable(self) -> int:
        """Senses that an exchange among the discovering patients can change."""
        _, patient, label = self.halves["discovery"]
        return sum(exchange_changes(label == sense, patient) for sense in np.unique(label))


def find_candidates(sample: SenseSample, seed: int) -> Candidates | str:
    """The latents of a term that are tested, whatever its senses, or why none can be."""
    if sample.reason is not None:
        return sample.reason
    lemma = sample.latents
    discovery = discovery_half(sample, seed)
    fires = binary(lemma.codes)
    tested = _prefilter(fires, discovery, lemma.table["doc_id"])
    if not len(tested):
        n_documents = lemma.table["doc_id"].filter(pl.Series(discovery)).n_unique()
        return (
            f"no latent fires in {MIN_DOCUMENTS} of the {n_documents} notes of the discovery half "
            "and is silent in as many"
        )
    fires = csr_array(csc_array(fires)[:, tested])
    halves = {}
    for name, rows in (("discovery", discovery), ("confirmation", ~discovery)):
        index = np.flatnonzero(rows)
        if len(present := np.unique(sample.label[index])) < len(sample.senses):
            absent = set(sample.senses) - {sample.senses[sense] for sense in present}
            return f"no occurrence of {' and '.join(sorted(absent))} in the {name} half"
        patient = codes_of(lemma.table["patient_id"][index])
        halves[name] = (fires[index], patient, sample.label[index])
    return Candidates(tested, fires, halves)


def tested_latents(sample: SenseSample, statistics: dict[str, int]) -> pl.DataFrame | str:
    """Every tested latent × sense of one term, p but not yet q, or why there is none.

    ``statistics``: n_permutations (of a test at most), seed.
    """
    lemma, label, n_senses = sample.latents, sample.label, len(sample.senses)
    seed = statistics["seed"]
    candidates = find_candidates(sample, seed)
    if isinstance(candidates, str):
        return candidates
    columns: dict[str, Any] = {}
    worth = np.arange(len(candidates.latents))
    for name, (firing, patient, labels) in candidates.halves.items():
        pvalues = np.full((n_senses, len(candidates.latents)), np.nan)
        taken = np.zeros(pvalues.shape, dtype=np.int64)
        pvalues[:, worth], taken[:, worth] = permutation_pvalues(
            csr_array(firing[:, worth]),
            patient,
            labels,
            n_senses,
            statistics["n_permutations"],
            stream(seed, "linked", name, lemma.lemma),
        )
        columns[f"p_{name}"], columns[f"n_{name}"] = pvalues, taken
        worth = np.flatnonzero((pvalues <= ALPHA).any(0))
        hits, totals = sense_counts(firing, labels, n_senses)
        columns[name] = (hits, totals, hits.sum(0) - hits, len(labels) - totals)
    hits, totals = sense_counts(candidates.fires, label, n_senses)
    names = enumerate(sample.senses)
    return pl.concat(
        [
            _sense_rows(lemma.lemma, name, candidates.latents, sense, hits, totals, columns)
            for sense, name in names
        ]
    )


def _prefilter(
    fires: csr_array, discovery: NDArray[np.bool_], doc_id: pl.Series
) -> NDArray[np.intp]:
    """Latents that fire in enough notes of the discovering half and are silent in enough."""
    index = np.flatnonzero(discovery)
    document = codes_of(doc_id[index])
    n_documents = int(document.max()) + 1
    member = csr_array(
        (np.ones(len(index), dtype=np.float32), (document, np.arange(len(index)))),
        shape=(n_documents, len(index)),
    )
    counts = np.bincount((member @ fires[index]).tocsr().indices, minlength=fires.shape[1])
    return np.flatnonzero((counts >= MIN_DOCUMENTS) & (counts <= n_documents - MIN_DOCUMENTS))


def _sense_rows(
    lemma: str,
    name: str,
    tested: NDArray,
    sense: int,
    hits: NDArray,
    totals: NDArray,
    columns: dict[str, Any],
) -> pl.DataFrame:
    n = int(totals.sum())
    own, fires, total = hits[sense], hits.sum(0), int(totals[sense])
    other, n_other = fires - own, n - total
    rows: dict[str, Any] = {
        "latent_id": tested.astype(np.int64),
        "n_hits": own,
        "presence_rate": own / total,
        "n_lemma_hits": fires,
        "n_other_hits": other,
        "presence_rate_other": other / n_other,
        "presence_rate_diff": own / total - other / n_other,
        "pvalue": columns["p_discovery"][sense],
        "n_permutations": columns["n_discovery"][sense],
        "pvalue_fisher": fisher_greater(own, total, other, n_other),
        "log_odds": haldane_log_odds(own, total, other, n_other),
        "pvalue_confirmation": columns["p_confirmation"][sense],
    }
    for half in ("discovery", "confirmation"):
        half_hits, half_totals, half_other, half_n_other = (each[sense] for each in columns[half])
        rows[f"rate_diff_{half}"] = half_hits / half_totals - half_other / half_n_other
    rows["log_odds_confirmation"] = haldane_log_odds(
        half_hits, half_totals, half_other, half_n_other
    )
    return pl.DataFrame(rows).with_columns(
        pl.lit(lemma).alias("lemma"),
        pl.lit(name).alias("sense"),
        pl.lit(total).cast(pl.Int64).alias("n_sense_total"),
        pl.lit(n).cast(pl.Int64).alias("n_lemma_total"),
        pl.lit(n_other).cast(pl.Int64).alias("n_other_total"),
    )


def _judge(table: pl.DataFrame) -> pl.DataFrame:
    """q over all tests, what was discovered, q of the confirmation over the discovered."""
    pvalue, confirming = (table[f"pvalue{half}"].to_numpy() for half in ("", "_confirmation"))
    qvalue = benjamini_hochberg(pvalue)
    discovered = qvalue <= ALPHA
    confirmation = benjamini_hochberg(np.where(discovered, confirming, np.nan))
    # whatever was discovered was tested again, unless nothing could change
    unconfirmable = discovered & np.isnan(confirming)
    reason = pl.when(pl.Series(np.isnan(pvalue))).then(pl.lit(NOT_EXCHANGEABLE))
    return table.with_columns(
        pl.Series("qvalue", qvalue, pl.Float64),
        pl.Series("discovered", discovered, pl.Boolean),
        pl.Series("qvalue_confirmation", confirmation, pl.Float64),
        pl.Series("confirmed", np.nan_to_num(confirmation, nan=1.0) <= ALPHA, pl.Boolean),
        reason.when(pl.Series(unconfirmable))
        .then(pl.lit(f"other half {NOT_EXCHANGEABLE}"))
        .otherwise(None)
        .alias("reason"),
    )


def _empty() -> pl.DataFrame:
    counts = ("n_hits", "n_sense_total", "n_lemma_hits", "n_lemma_total")
    whole = ("latent_id", *counts, "n_other_hits", "n_other_total", "n_permutations")
    judged = (
        "qvalue", "discovered", "qvalue_confirmation", "confirmed", "n_tests", "smallest_q",
        "reason",
    )  # fmt: skip
    own = [name for name in SENSE_LINKED if name not in ("model", "layer", "sae", *judged)]
    types = dict.fromkeys(whole, pl.Int64) | {"lemma": pl.String, "sense": pl.String}
    return pl.DataFrame(schema={name: types.get(name, pl.Float64) for name in own})
