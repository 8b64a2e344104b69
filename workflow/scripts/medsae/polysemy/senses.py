"""One resolver of senses, used everywhere: two independent labellers and when to abstain.

The NER labeller: the entity label over the term speaks for a sense if it is in the label
set of exactly one sense of the term. The cue labeller: the sense whose domain expression
occurs within ±100 characters of the term or in the heading of its section, unless its exclude
expression does too; it speaks if that leaves exactly one sense. Resolved: what both say, or the
one that speaks; nothing when they disagree or both are silent. A gold sense, where there is one, is
never mixed in: ``sense`` prefers it only if the configuration says so, and the resolver is scored
against it.
"""

import re
from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medsae.polysemy.columns import AGREEMENT, POLYSEMOUS
from medsae.polysemy.lexicon import split_list
from medsae.statistics import (
    MIN_CLUSTERS,
    cluster_weights,
    clustered_share_interval,
    codes_of,
    cohen_kappa,
    percentile_interval,
    stream,
)

CUE_WINDOW = 100
"""Characters on either side of the term in which cues are looked for."""

HEADING = re.compile(r"^[ \t]*[^\W\d_][^\n:]{0,60}:", re.MULTILINE)
"""What begins a section: words and a colon at the beginning of a line."""

CueLabeller = Callable[[str, int, int, str], str | None]


def cue_labeller(lexicon: pl.DataFrame) -> CueLabeller:
    """A function (text, start, end, lemma) -> sense the context speaks for, or None."""
    expressions: dict[str, list[tuple[str, re.Pattern | None, re.Pattern | None]]] = {}
    for row in lexicon.filter(pl.col("kind") == POLYSEMOUS).iter_rows(named=True):
        domain, exclude = (
            re.compile(row[column], re.IGNORECASE) if row[column] else None
            for column in ("domain_regexes", "exclude_regexes")
        )
        expressions.setdefault(row["term"], []).append((row["sense"], domain, exclude))

    def label(text: str, start: int, end: int, lemma: str) -> str | None:
        # search within bounds, so that \b at the window's left edge sees the whole word
        places = [(max(0, start - CUE_WINDOW), end + CUE_WINDOW)]
        places += [heading.span() for heading in HEADING.finditer(text, 0, start)][-1:]

        def speaks(expression: re.Pattern | None) -> bool:
            found = (expression is not None and expression.search(text, *place) for place in places)
            return any(found)

        spoken = [
            sense
            for sense, domain, exclude in expressions.get(lemma, [])
            if speaks(domain) and not speaks(exclude)
        ]
        return spoken[0] if len(spoken) == 1 else None

    return label


def label_votes(lexicon: pl.DataFrame) -> pl.DataFrame:
    """Which single sense each NER label speaks for: lemma, ner_label, ner_sense (str).

    Labels that several senses of a lemma share are left out: they are no evidence.
    """
    return (
        lexicon.filter(pl.col("kind") == POLYSEMOUS)
        .select(
            pl.col("term").alias("lemma"),
            pl.col("sense").alias("ner_sense"),
            pl.col("ner_labels").map_elements(split_list, pl.List(pl.String)).alias("ner_label"),
        )
        .explode("ner_label")
        .group_by("lemma", "ner_label", maintain_order=True)
        .agg(pl.col("ner_sense").first(), pl.len().alias("n"))
        .filter(pl.col("n") == 1)
        .drop("n")
    )


def resolve(sense_source: str) -> list[pl.Expr]:
    """Expressions ``resolved_sense`` and ``sense`` from ner_sense, cue_sense, gold_sense."""
    ner, cue = pl.col("ner_sense"), pl.col("cue_sense")
    resolved = (
        pl.when(ner.is_not_null() & cue.is_not_null() & (ner != cue))
        .then(None)
        .otherwise(pl.coalesce(ner, cue))
    )
    sense = pl.coalesce(pl.col("gold_sense"), resolved) if sense_source == "gold" else resolved
    return [resolved.alias("resolved_sense"), sense.alias("sense")]


def sense_agreement(occurrences: pl.DataFrame, n_bootstrap: int, seed: int) -> pl.DataFrame:
    """Agreement of the two labellers, and accuracy against gold, one row per term.

    ``occurrences`` needs patient_id, lemma, kind, ner_sense, cue_sense, resolved_sense, gold_sense
    and sense, the one the study goes on with; ``n_sense`` counts these. κ has a patient-bootstrap
    interval where there are `MIN_CLUSTERS` patients and any disagreement; shares have Wilson's, for
    as many independent occurrences as those of these patients are worth.
    """
    polysemous = occurrences.filter(pl.col("kind") == POLYSEMOUS)
    rows = [
        {"lemma": lemma} | _agreement(part.sort("patient_id"), n_bootstrap, stream(seed, lemma))
        for (lemma,), part in sorted(polysemous.group_by("lemma"))
    ]
    return pl.DataFrame(rows, schema=dict.fromkeys(AGREEMENT), infer_schema_length=None)


def _agreement(part: pl.DataFrame, n_bootstrap: int, rng: np.random.Generator) -> dict:
    ner, cue, resolved, gold = (
        part[column] for column in ("ner_sense", "cue_sense", "resolved_sense", "gold_sense")
    )
    both = part.filter(ner.is_not_null() & cue.is_not_null())
    kappa, low, high = _kappa(both, n_bootstrap, rng)
    known = gold.drop_nulls()
    shares: dict[str, float | None] = {}
    for name, labels in (("", resolved), ("ner_", ner), ("cue_", cue)):
        judged = part.filter(labels.is_not_null() & gold.is_not_null())
        column = labels.name
        right = (judged[column] == judged["gold_sense"]).to_numpy()
        estimate = _share_by_patient(right, codes_of(judged["patient_id"]))
        for suffix, value in zip(("", "_low", "_high"), estimate, strict=True):
            shares[f"{name}accuracy{suffix}"] = value
    n_resolved = resolved.count()
    largest = known.value_counts()["count"].to_numpy().max(initial=0)
    return {
        "n_occurrences": len(part),
        "n_resolved": n_resolved,
        "coverage": n_resolved / len(part),
        "n_ner": ner.count(),
        "n_cue": cue.count(),
        "n_both": len(both),
        "n_agree": int((both["ner_sense"] == both["cue_sense"]).sum()),
        "n_abstained": len(part) - n_resolved,
        "n_sense": part["sense"].count(),
        "kappa": kappa,
        "kappa_low": low,
        "kappa_high": high,
        "n_gold": len(known),
        **shares,
        "majority_baseline": float(largest) / len(known) if len(known) else None,
    }


def _share_by_patient(
    right: NDArray[np.bool_], patient: NDArray[np.intp]
) -> tuple[float | None, float | None, float | None]:
    """Share of ``right`` [n] and its interval; None without rows, bounds None with one patient.

    A few patients may by chance be more alike than independent occurrences would be: the standard
    error is at least that of independent ones.
    """
    if not len(right):
        return None, None, None
    share = float(right.mean())
    by_patient = np.bincount(patient, right - share)
    n_patients = len(by_patient)
    if n_patients < 2:
        return share, None, None
    error = np.sqrt(n_patients / (n_patients - 1) * np.square(by_patient).sum()) / len(right)
    error = max(error, np.sqrt(share * (1 - share) / len(right)))
    return share, *clustered_share_interval(share, float(error), n_patients)


def _kappa(
    both: pl.DataFrame, n_bootstrap: int, rng: np.random.Generator
) -> tuple[float | None, float | None, float | None]:
    if both.is_empty():
        return None, None, None
    senses = sorted({*both["ner_sense"], *both["cue_sense"]})
    n = len(senses)
    code = {sense: index for index, sense in enumerate(senses)}
    cell = np.array(
        [code[a] * n + code[b] for a, b in both.select("ner_sense", "cue_sense").rows()]
    )
    patients, patient = np.unique(both["patient_id"].to_numpy(), return_inverse=True)
    tables: NDArray = np.zeros((len(patients), n * n))
    np.add.at(tables, (patient, cell), 1)
    observed = cohen_kappa(tables.sum(0).reshape(n, n))
    if len(patients) < MIN_CLUSTERS or observed == 1:  # no resample would ever disagree
        return None if np.isnan(observed) else float(observed), None, None
    resampled = cluster_weights(len(patients), n_bootstrap, rng) @ tables
    low, high = percentile_interval(cohen_kappa(resampled.reshape(-1, n, n)))
    values = [float(value) for value in (observed, low, high)]
    return tuple(None if np.isnan(value) else value for value in values)  # type: ignore[return-value]
