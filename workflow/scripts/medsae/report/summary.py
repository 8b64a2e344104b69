"""The answers in words: ``summary.md``, its page in the report, and the front page's headline."""

import math

import polars as pl

from medsae.report.corpus import patients_sentence
from medsae.report.document import Block, Bullets, Heading, Paragraph, Table
from medsae.report.findings import Run, Summary, definition, headline, limits, where
from medsae.report.means import mean_over_terms
from medsae.report.mixed_effects import PLANNED, SCALES
from medsae.report.ner import ALL
from medsae.report.phrases import estimated, of_row, q_is, share
from medsae.report.tables import ALPHA
from medsae.report.terms import term_blocks

MATCHINGS = {"exact": "label and both ends right", "overlap": "label right, some overlap"}


def front_page(run: Run) -> list[Block]:
    """The headline, for the front page of the Snakemake report."""
    return [Paragraph(definition(run)), Bullets(headline(run))]


def write_summary(run: Run) -> list[Block]:
    """The whole summary as a document."""
    notes = patients_sentence(run.notes)
    blocks: list[Block] = [
        Heading(1, f"Senses of medical terms: {run.corpus}"),
        Paragraph(
            f"{notes}. Written from the tables of this run; estimates carry their 95% "
            "interval in brackets."
        ),
        Heading(2, "In short"),
        Paragraph(definition(run)),
        Bullets(headline(run)),
    ]
    for summary in run.trained:
        blocks.append(Heading(2, f"Does {where(summary)} separate the senses of each term?"))
        blocks += term_blocks(run.rows_of(summary), run.gains_of(summary))
    blocks += [Heading(2, "What the latents carry"), *_latents(run)]
    blocks += [Heading(2, "All terms, notes and models together"), *_mixed_effects(run)]
    blocks += [Heading(2, "How good the inputs are"), *_inputs(run)]
    blocks += [Heading(2, "What cannot be concluded"), Bullets(limits(run))]
    return blocks


def _latents(run: Run) -> list[Block]:
    return [block for summary in (*run.trained, *run.random) for block in _latents_of(run, summary)]


def _latents_of(run: Run, summary: Summary) -> list[Block]:
    linked, probes = summary["sense_linked"], summary["probes"]
    ablation, retrieval = summary["ablation"], summary["retrieval"]
    remark = " (random weights)" if summary["model"] in run.random_models else ""
    points = [
        f"Sense-linked latents: {_linked(linked)}.",
        f"Probes: mean AUROC over terms {estimated(probes['auroc'])}; "
        f"{probes['n_terms_above_chance']} of {probes['n_terms']} terms above shuffled senses.",
    ]
    if retrieval["delta_p_at_1"] is None:
        points.append(f"Retrieval: {retrieval['reason'] or 'not enough data'}.")
    else:
        points.append(
            f"Retrieval: re-ranking the first {retrieval['k']} hits without the "
            f"{retrieval['n_anchor']} largest latents changes P@1 by "
            f"{estimated(retrieval['delta_p_at_1'], signed=True)} "
            f"({q_is(retrieval['p_adjusted']).replace('q', 'p')} by patients, after Holm; "
            f"{retrieval['n_queries']} queries of {retrieval['n_patients']} patients, none of whom "
            f"settings were chosen on). {_methods(retrieval['p_at_1'])}{_against(retrieval)}"
        )
    points.append(_removal(ablation))
    pooling = summary["pooling"]
    points.append(
        f"Tokens of a term pooled (the study: {pooling['chosen']}), Δ on average over terms: "
        + "; ".join(f"{name} {estimated(delta)}" for name, delta in pooling["delta"].items())
        + "."
    )
    faithfulness = summary["faithfulness"]
    recovered = faithfulness["loss_recovered"]
    more = recovered is not None and recovered["low"] is not None and recovered["low"] > 1
    points.append(
        f"Faithfulness: share of the loss recovered {share(recovered)}"
        f"{' (the reconstruction predicts these notes better than the state itself)' * more}; "
        f"of the variance unexplained {share(faithfulness['fvu'])}, both on held-out patients; "
        f"{summary['dead_fraction']:.1%} of the latents never fire."
    )
    return [Heading(3, where(summary) + remark), Bullets(tuple(points))]


def _linked(linked: Summary) -> str:
    if linked["n_tests"] == 0:
        return "no latent of any term could be tested; the reasons are given below"
    return (
        f"{linked['n_discovered']} discovered on one half of the patients, "
        f"{linked['n_confirmed']} of them confirmed on the other, in "
        f"{linked['n_senses_with_confirmed']} senses{_attainable(linked)}"
    )


def _attainable(linked: Summary) -> str:
    """Whether one latent alone could have passed, of as many as were tested."""
    smallest = linked["smallest_q"]
    if smallest is None:
        return ""
    tests = f"; {linked['n_tests']:,} tests, of which one alone"
    if smallest <= ALPHA:
        return f"{tests} could reach {q_is(smallest)}"
    needed = math.ceil(smallest / ALPHA)
    return (
        f"{tests} could not pass: with the permutations made, q < {ALPHA} takes {needed} latents "
        "that no permutation reaches"
    )


def _methods(p_at_1: dict) -> str:
    named = {
        "rerank": "re-ranked",
        "full": "all latents",
        "raw_residual_centred": "hidden state",
        "tfidf_context": "words around",
        "majority_sense": "majority sense",
        "random": "random order",
    }
    parts = [
        f"{text} {estimated(p_at_1[method])}" for method, text in named.items() if method in p_at_1
    ]
    return f"P@1: {'; '.join(parts)}." if parts else ""


def _against(retrieval: Summary) -> str:
    """Whether the baselines that know words or the raw hidden state retrieve better."""
    named = {"tfidf_context": "The words around", "raw_residual_centred": "The hidden state"}
    found = retrieval.get("p_at_1_minus_all_latents", {})
    sentences = []
    for method, text in named.items():
        if (delta := found.get(method)) is None or delta["low"] is None:
            continue
        verdict = "no better or worse, as far as this shows,"
        if delta["low"] > 0:
            verdict = "better"
        elif delta["high"] < 0:
            verdict = "worse"
        sentences.append(
            f" {text} retrieve{'' if method == 'tfidf_context' else 's'} senses {verdict} than all "
            f"latents: P@1 differs by {estimated(delta, signed=True)}."
        )
    return "".join(sentences)


def _removal(ablation: Summary) -> str:
    if not ablation["n_senses"] and ablation["linked_minus_random_nats"] is None:
        return "Removal of sense-linked latents: there is none to remove in enough patients."
    senses = "no sense alone has enough patients"
    if n := ablation["n_senses"]:
        able = _able(ablation["n_senses_able_above_random_latent"], n)
        senses = f"{ablation['n_senses_above_random_latent']} of {n} senses at q < 0.05{able}"
    text = (
        "Removal of sense-linked latents changes the loss of the following tokens by "
        f"{estimated(ablation['linked_minus_random_nats'], signed=True, digits=3)} nats beyond "
        f"removal of matched random latents (all terms; {senses})."
    )
    if ablation["difference_in_differences_nats"] is None:
        return f"{text} Own sense against other senses: not estimable ({ablation['reason']})."
    able = _able(ablation["n_senses_able_above_other_sense"], ablation["n_senses_compared"])
    return (
        f"{text} Own sense against other senses, each latent compared with itself, the difference "
        "in differences is "
        f"{estimated(ablation['difference_in_differences_nats'], signed=True, digits=3)} "
        f"({ablation['n_senses_above_other_sense']} of {ablation['n_senses_compared']} senses at "
        f"q < 0.05{able}). These latents fire "
        f"{estimated(ablation['activation_own_over_other_senses'])} times as strongly at their own "
        "sense as at others, so a positive difference says how much the loss depends on them "
        "there, not that each unit of activation does more."
    )


def _able(n_able: int, n: int) -> str:
    """Whether one sense alone could have passed, with the patients it has."""
    if not n:
        return ""
    if not n_able:
        return "; one alone could not pass"
    return "; one alone could pass" + f", in {n_able} of them" * (n_able < n)


def _mixed_effects(run: Run) -> list[Block]:
    rows = [
        (
            SCALES.get((row["response"], row["specification"]), row["response"]),
            row["contrast"],
            estimated({"value": row["estimate"], "low": row["conf_low"], "high": row["conf_high"]}),
            "" if row["qvalue"] is None else q_is(row["qvalue"]),
            row["status"],
        )
        for row in run.contrasts.filter(pl.col("specification") == PLANNED).iter_rows(named=True)
    ]
    if not rows:
        return [Paragraph("No planned contrast could be estimated; the reasons are given below.")]
    return [Table(("response", "planned contrast", "estimate", "q", "fit"), tuple(rows), n_text=2)]


def _whose_senses(run: Run) -> str:
    """Which senses the study's numbers are about."""
    n_sense, n_gold = (int(run.agreement[name].sum()) for name in ("n_sense", "n_gold"))
    if run.sense_source == "gold" and n_gold:
        rest = f" and, where there is none, assigned ones of {n_sense - n_gold:,}"
        return (
            f"Everything above is about the gold senses of {n_gold:,} occurrences"
            f"{rest if n_sense > n_gold else ''}."
        )
    return f"Everything above is about the assigned senses of {n_sense:,} occurrences."


def _inputs(run: Run) -> list[Block]:
    points = [f"Notes: {patients_sentence(run.notes)}; {run.notes['n_dropped_empty']} dropped."]
    agreement = run.agreement
    kappa = of_row(mean_over_terms("kappa", agreement["kappa"]), "kappa")
    points.append(
        "Senses: agreement of entity labels and cues, Cohen's κ, on average over terms "
        f"{estimated(kappa)}; the two together assign a sense to "
        f"{agreement['n_resolved'].sum():,} of {agreement['n_occurrences'].sum():,} occurrences."
    )
    if agreement["accuracy"].is_not_null().any():
        right, of_labels, of_cues = (
            share(of_row(mean_over_terms(name, agreement[name]), name))
            for name in ("accuracy", "ner_accuracy", "cue_accuracy")
        )
        points.append(
            f"Against gold senses, {right} of the assigned senses are right, on average over "
            f"terms; of what entity labels alone say {of_labels}, of what cues alone say {of_cues}."
        )
    points.append(_whose_senses(run))
    if run.ner is not None:
        points += [
            f"Entities ({run.ner_name}), against {row['n_gold']:,} gold spans ({text}): F1 "
            f"{estimated(of_row(row, 'f1'))}."
            for matching, text in MATCHINGS.items()
            for row in run.ner.filter(
                (pl.col("label") == ALL) & (pl.col("matching") == matching)
            ).iter_rows(named=True)
        ]
    return [Bullets(tuple(points))]
