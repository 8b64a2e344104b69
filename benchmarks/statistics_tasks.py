"""Statistics of polysemy, each beside a straightforward implementation of its definition.

Both sides work on the same generated table of term occurrences and their latents, read before
the clock starts.
"""

import importlib
import itertools
import math
import random
from collections import Counter, defaultdict
from pathlib import Path

import common  # makes the library importable
import numpy as np
import polars as pl

TABLE = "occurrence_latents.parquet"
N_LEMMAS = 15
N_LATENTS = 65_536
VOCABULARY = 4_000
"""Latents that occurrences of one term draw from, with Zipf-like frequencies."""

SAMPLED_PER_SENSE = 100
"""Occurrences per sense that the published Jaccard script samples."""


def generate(path: Path, n_occurrences: int, k: int, seed: int = 0) -> None:
    """Write an occurrence_latents table: two senses, about two occurrences per patient."""
    rng = np.random.default_rng(seed)
    per_lemma = n_occurrences // N_LEMMAS
    parts = []
    for lemma in range(N_LEMMAS):
        patient = np.sort(rng.integers(0, per_lemma // 2, per_lemma))
        sense = rng.integers(0, 2, per_lemma // 2)[patient]
        latents = rng.choice(N_LATENTS, VOCABULARY, replace=False)
        weight = -1.1 * np.log(np.arange(1, VOCABULARY + 1)) + rng.normal(size=(2, VOCABULARY))
        ids = np.empty((per_lemma, k), dtype=np.int32)
        for start in range(0, per_lemma, 1000):
            rows = slice(start, start + 1000)
            # the k largest of log-weight + Gumbel noise: k draws without replacement
            keys = weight[sense[rows]] + rng.gumbel(size=(len(sense[rows]), VOCABULARY))
            ids[rows] = latents[np.argpartition(-keys, k, axis=1)[:, :k]]
        z = -np.sort(-rng.gamma(2, size=(per_lemma, k)).astype(np.float32), axis=1)
        parts.append(
            pl.DataFrame(
                {
                    "doc_id": [f"d{p:06d}" for p in patient],
                    "patient_id": [f"p{p:06d}" for p in patient],
                    "lemma": [f"term{lemma:02d}"] * per_lemma,
                    "kind": ["polysemous"] * per_lemma,
                    "sense": np.where(sense == 0, "one", "two").tolist(),
                    "char_start": np.arange(per_lemma, dtype=np.uint32),
                    "latent_ids": ids,
                    "z_values": z,
                }
            ).with_columns(pl.col("latent_ids", "z_values").arr.to_list())
        )
    table = pl.concat(parts).with_row_index("occurrence_id")
    table.with_columns(
        pl.lit("generated").alias("model"), pl.lit(0, pl.Int32).alias("layer"),
        pl.lit("topk").alias("sae"),
    ).write_parquet(path)  # fmt: skip


# What each side works on.


def read_python(path: Path) -> dict[tuple[str, str], list[list[int]]]:
    """(lemma, sense) -> list of lists of latents."""
    importlib.import_module("scipy.stats")
    groups: dict[tuple[str, str], list[list[int]]] = defaultdict(list)
    for lemma, sense, ids in pl.read_parquet(
        path / TABLE, columns=["lemma", "sense", "latent_ids"]
    ).rows():
        groups[lemma, sense].append(ids)
    return groups


def read_samples(path: Path) -> list:
    """The library's samples of every term."""
    for module in ("entropy", "jaccard_tables", "linked_latents"):
        importlib.import_module(f"medsae.polysemy.{module}")
    from medsae.polysemy.sparse import read_lemmas, sense_sample

    return [sense_sample(lemma, 10) for lemma in read_lemmas(path / TABLE)]


# Jaccard: mean overlap of two senses over pairs of occurrences.


def jaccard_straightforward(groups: dict) -> dict[str, float]:
    """Python sets, on the pairs of 100 occurrences per sense, as published."""
    random.seed(0)
    done = every = 0
    for lemma in sorted({lemma for lemma, _ in groups}):
        one, two = groups[lemma, "one"], groups[lemma, "two"]
        first = random.sample(one, min(SAMPLED_PER_SENSE, len(one)))
        second = random.sample(two, min(SAMPLED_PER_SENSE, len(two)))
        values = [
            len(set(a) & set(b)) / len(set(a) | set(b)) for a, b in itertools.product(first, second)
        ]
        float(np.mean(values)), float(np.median(values)), float(np.std(values))
        done += len(values)
        every += len(one) * len(two)
    return {"share": done / every, "pairs": done}


def jaccard_library(samples: list) -> dict[str, float]:
    """Every pair, exact mean, median and standard deviation."""
    from medsae.polysemy.jaccard_tables import published_rows

    pairs = sum(row["n_pairs"] for sample in samples for row in published_rows(sample))
    return {"pairs": pairs}


# Sense-linked latents: presence rates, prefilter, Fisher's exact test, BH within a lemma.


def linked_straightforward(groups: dict) -> dict[str, float]:
    from scipy.stats import fisher_exact

    tests, total = 0, 0.0
    for lemma in sorted({lemma for lemma, _ in groups}):
        counts = {
            sense: Counter(latent for ids in groups[lemma, sense] for latent in set(ids))
            for sense in ("one", "two")
        }
        totals = {sense: len(groups[lemma, sense]) for sense in ("one", "two")}
        pvalues = []
        for sense, other in (("one", "two"), ("two", "one")):
            for latent, hits in counts[sense].items():
                rate = hits / totals[sense]
                other_hits = counts[other][latent]
                if rate >= 0.1 and rate - other_hits / totals[other] >= 0.05:
                    table = [
                        [hits, totals[sense] - hits],
                        [other_hits, totals[other] - other_hits],
                    ]
                    pvalues.append(fisher_exact(table, alternative="greater")[1])
        order = sorted(range(len(pvalues)), key=pvalues.__getitem__, reverse=True)
        smallest = 1.0
        for rank, index in zip(range(len(order), 0, -1), order, strict=True):
            smallest = min(smallest, pvalues[index] * len(order) / rank)
        tests, total = tests + len(pvalues), total + sum(pvalues)
    return {"tests": tests, "check": round(total, 6)}


def linked_library(samples: list) -> dict[str, float]:
    """The same definition with the library's counts and its Fisher p."""
    from medsae.polysemy.linked_latents import binary, sense_counts
    from medsae.statistics import benjamini_hochberg, fisher_greater

    tests, total = 0, 0.0
    for sample in samples:
        hits, totals = sense_counts(binary(sample.latents.codes), sample.label, 2)
        other, n_other = hits.sum(0) - hits, totals.sum() - totals
        rate = hits / totals[:, None]
        kept = (rate >= 0.1) & (rate - other / n_other[:, None] >= 0.05)
        sense, latent = np.nonzero(kept)
        pvalues = fisher_greater(
            hits[sense, latent], totals[sense], other[sense, latent], n_other[sense]
        )
        benjamini_hochberg(pvalues)
        tests, total = tests + len(pvalues), total + float(pvalues.sum())
    return {"tests": tests, "check": round(total, 6)}


# Entropy of the pooled latents of each sense.


def entropy_straightforward(groups: dict) -> dict[str, float]:
    entropy = 0.0
    for ids in groups.values():
        counts = Counter(itertools.chain.from_iterable(ids))
        total = sum(counts.values())
        entropy -= sum(n / total * math.log2(n / total) for n in counts.values())
    return {"senses": len(groups), "check": round(entropy, 6)}


def entropy_library(samples: list) -> dict[str, float]:
    from medsae.polysemy.entropy import pooled_entropy

    senses, entropy = 0, 0.0
    for sample in samples:
        codes = sample.latents.codes
        lengths = np.diff(codes.indptr)
        label = np.repeat(sample.label.astype(np.int64), lengths)
        n_latents, n_senses = codes.shape[1], len(sample.senses)
        counts = np.bincount(label * n_latents + codes.indices, minlength=n_latents * n_senses)
        for each in counts.reshape(n_senses, n_latents):
            entropy += pooled_entropy(each.astype(float))
        senses += n_senses
    return {"senses": senses, "check": round(entropy, 6)}


# What the published analysis lacks: the library alone.


def permutations_library(samples: list) -> dict[str, float]:
    """10,000 patient permutations of Δ of one term with as many occurrences as are tested."""
    from medsae.polysemy.jaccard import MAX_TESTED, pair_similarity, permutation_pvalue
    from medsae.statistics import stream

    sample = samples[0]
    rows = np.arange(min(MAX_TESTED, len(sample.label)))
    patient = sample.latents.patient[rows]
    similarity = pair_similarity(sample.latents.codes[rows], patient, None)
    permutation_pvalue(similarity, patient, sample.label[rows], 10_000, stream(0))
    return {"occurrences": len(rows)}


def linked_permutations_library(samples: list) -> dict[str, float]:
    """Sense-linked latents of one term, up to 10,000 permutations, discovery and confirmation."""
    from medsae.polysemy.linked_latents import tested_latents

    tested = tested_latents(samples[0], {"n_permutations": 10_000, "seed": 0})
    return {"tests": 0 if tested is None else len(tested)}


Side = common.Side

TASKS: dict[str, tuple[Side | None, Side]] = {
    "jaccard": (Side(read_python, jaccard_straightforward), Side(read_samples, jaccard_library)),
    "sense_linked_latents": (
        Side(read_python, linked_straightforward),
        Side(read_samples, linked_library),
    ),
    "entropy": (Side(read_python, entropy_straightforward), Side(read_samples, entropy_library)),
    "jaccard_permutations": (None, Side(read_samples, permutations_library)),
    "linked_permutations": (None, Side(read_samples, linked_permutations_library)),
}
