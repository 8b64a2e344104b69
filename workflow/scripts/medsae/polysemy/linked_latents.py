"""Latents linked to one sense: they fire on occurrences of that sense more than on others.

Half of the patients discover, the other half confirms. Tested are all latents that fire in
at least ``MIN_DOCUMENTS`` notes of the discovering half and stay silent in as many, whatever
the sense (a prefilter that looks at labels would spoil the p-values). The statistic is the
difference of firing rates, rate(sense) − rate(other senses), one-sided; patients' label
sequences are permuted, all latents under the same permutations. q: Benjamini–Hochberg over
every lemma × sense × latent test of the SAE. A discovered latent (q ≤ 0.05) is confirmed if
the same test on the other patients has q ≤ 0.05 over the discovered ones. That test is run
for latents with p ≤ 0.05 only, among which all the discovered are.

Also given: the log odds ratio with Haldane's ½ added to each cell, and the p of the published
analysis (Fisher's exact test, which takes occurrences for independent).
"""

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
    benjamini_hochberg,
    fisher_greater,
    permuted_labels,
    pvalue_greater,
    stream,
)

MIN_DOCUMENTS = 5
"""Notes of the discovering half a latent must fire in, and be silent in, to be tested."""

ALPHA = 0.05

SHOWN_RATE, SHOWN_DIFFERENCE = 0.1, 0.05
"""Tests below these (presence rate, rate difference) count for q but are not listed."""

TIE = 1e-9


def find_sense_linked_latents(latents: str | Path, statistics: dict[str, int]) -> pl.DataFrame:
    """Table sense_linked_latents of one SAE."""
    parts = [
        tested_latents(sample, statistics)
        for lemma in progress(read_lemmas(latents, kinds=(POLYSEMOUS,)), "sense-linked latents")
        for sample in [sense_sample(lemma, statistics["min_occurrences"])]
        if sample.reason is None
    ]
    source = {name: pl.lit(value) for name, value in source_of(latents).items()}
    table = pl.concat([part for part in parts if part is not None] or [_empty()])
    table = _judge(table).filter(
        (
            (pl.col("presence_rate") >= SHOWN_RATE)
            & (pl.col("presence_rate_diff") >= SHOWN_DIFFERENCE)
        )
        | pl.col("discovered")
    )
    table = table.sort(
        ["lemma", "sense", "confirmed", "presence_rate_diff", "latent_id"],
        descending=[False, False, True, True, False],
    )
    return tidy(table.with_columns(**source).select(SENSE_LINKED))


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
    n_permutations: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """p [S, L] of rate(sense) − rate(others) for each column of binary ``firing`` [n, L].

    Rows sorted by patient. A permutation without one of the two groups counts as reaching.
    """
    if not firing.shape[1]:
        return np.empty((n_senses, 0))
    columns = firing.T.tocsr().astype(np.float32)
    n = len(label)
    fires = np.asarray(columns.sum(axis=1)).astype(np.float64)
    hits, totals = sense_counts(firing, label, n_senses)
    observed = _difference(hits, totals[:, None], fires, n)
    reaching = np.zeros(hits.shape, dtype=np.int64)
    for block in permuted_labels(label, patient, n_permutations, rng):
        for sense in range(n_senses if n_senses > 2 else 1):
            indicator = (block == sense).astype(np.float32)
            total = indicator.sum(1, dtype=np.float64)
            # counts stay below 2^24, so float32 sums are exact
            permuted = np.asarray(columns @ np.ascontiguousarray(indicator.T))
            difference = _difference(permuted, total[None, :], fires[:, None], n)
            known = observed[sense][:, None]
            reaching[sense] += (~(difference < known - TIE)).sum(1)
            if n_senses == 2:
                # the other sense's difference is the opposite
                reaching[1] += (~(difference > known + TIE)).sum(1)
    return np.asarray(pvalue_greater(reaching, n_permutations))


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


def tested_latents(sample: SenseSample, statistics: dict[str, int]) -> pl.DataFrame | None:
    """Every tested latent × sense of one term, p but not yet q; None if nothing can be tested."""
    lemma, label, n_senses = sample.latents, sample.label, len(sample.senses)
    seed = statistics["seed"]
    discovery = discovery_half(sample, seed)
    fires = binary(lemma.codes)
    tested = _prefilter(fires, discovery, lemma.table["doc_id"])
    if not len(tested):
        return None
    fires = csr_array(csc_array(fires)[:, tested])
    halves: dict[str, tuple] = {}
    for name, rows in (("discovery", discovery), ("confirmation", ~discovery)):
        index = np.flatnonzero(rows)
        if len(np.unique(label[index])) < n_senses:
            return None
        halves[name] = (
            fires[index],
            codes_of(lemma.table["patient_id"][index]),
            label[index],
        )
    columns: dict[str, Any] = {}
    worth = np.arange(len(tested))
    for name, (firing, patient, labels) in halves.items():
        pvalues = np.full((n_senses, len(tested)), np.nan)
        pvalues[:, worth] = permutation_pvalues(
            csr_array(firing[:, worth]),
            patient,
            labels,
            n_senses,
            statistics["n_permutations"],
            stream(seed, "linked", name, lemma.lemma),
        )
        columns[f"p_{name}"] = pvalues
        worth = np.flatnonzero((pvalues <= ALPHA).any(0))
        hits, totals = sense_counts(firing, labels, n_senses)
        columns[name] = (hits, totals, hits.sum(0) - hits, len(labels) - totals)
    hits, totals = sense_counts(fires, label, n_senses)
    return pl.concat(
        [
            _sense_rows(lemma.lemma, sample.senses[sense], tested, sense, hits, totals, columns)
            for sense in range(n_senses)
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
    qvalue = benjamini_hochberg(table["pvalue"].to_numpy())
    discovered = qvalue <= ALPHA
    again = np.where(discovered, table["pvalue_confirmation"].to_numpy(), np.nan)
    confirmation = benjamini_hochberg(again)
    return table.with_columns(
        pl.Series("qvalue", qvalue, pl.Float64),
        pl.Series("discovered", discovered, pl.Boolean),
        pl.Series("qvalue_confirmation", confirmation, pl.Float64),
        pl.Series("confirmed", np.nan_to_num(confirmation, nan=1.0) <= ALPHA, pl.Boolean),
        pl.lit(len(table)).cast(pl.Int64).alias("n_tests"),
    )


def _empty() -> pl.DataFrame:
    counts = ("n_hits", "n_sense_total", "n_lemma_hits", "n_lemma_total")
    whole = ("latent_id", *counts, "n_other_hits", "n_other_total")
    judged = ("qvalue", "discovered", "qvalue_confirmation", "confirmed", "n_tests")
    own = [name for name in SENSE_LINKED if name not in ("model", "layer", "sae", *judged)]
    types = dict.fromkeys(whole, pl.Int64) | {"lemma": pl.String, "sense": pl.String}
    return pl.DataFrame(schema={name: types.get(name, pl.Float64) for name in own})
