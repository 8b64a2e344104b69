"""The imaging study in words: what was found, and what so few scans cannot show."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from medsae.imaging.probes import JUDGED
from medsae.report.document import Block, Bullets, Heading, Paragraph, Table
from medsae.report.imaging.data import RANDOM_SUFFIX, is_control
from medsae.report.imaging.probes import task_means
from medsae.report.phrases import estimated

FEW_PATIENTS = 30
"""Below this, an interval over patients says little and a difference between encoders less."""


@dataclass(frozen=True)
class ImagingRun:
    """What the summary is written from; tables of the chosen SAEs by encoder."""

    name: str
    slices: pl.DataFrame
    quarantine: pl.DataFrame
    ranking: pl.DataFrame
    chosen: dict[str, str]
    probes: pl.DataFrame
    fingerprints: dict[str, pl.DataFrame]
    languages: dict[str, pl.DataFrame]
    metrics: dict[str, dict[str, Any]]
    evaluation: dict[str, Any]
    judged_on: list[str]


def write_imaging_summary(run: ImagingRun) -> list[Block]:
    """The whole summary as a document."""
    blocks: list[Block] = [
        Heading(1, f"Features of medical images: {run.name}"),
        Paragraph(_scans(run)),
        Heading(2, "In short"),
        Bullets(tuple(_short(run))),
        Heading(2, "What the embeddings know"),
        *_probes(run),
        Heading(2, "Which autoencoder"),
        *_ranking(run),
    ]
    for encoder in _ordered(run):
        blocks += [Heading(2, f"{encoder}: {run.chosen[encoder]}"), Bullets(_details(run, encoder))]
    if run.quarantine.height:
        rows = tuple((str(a), str(b)) for a, b in run.quarantine.select("source", "reason").rows())
        blocks += [
            Heading(2, "Volumes that were left out"),
            Table(("source", "reason"), rows, n_text=2),
        ]
    blocks += [Heading(2, "What cannot be concluded"), Bullets(tuple(limits(run)))]
    return blocks


def _ordered(run: ImagingRun) -> list[str]:
    return sorted(run.chosen, key=lambda name: (is_control(name), name))


def _scans(run: ImagingRun) -> str:
    counts = run.slices.group_by("split").agg(
        pl.len(), pl.col("scan").n_unique(), pl.col("patient_id").n_unique().alias("patients")
    )
    by_split = {row["split"]: row for row in counts.iter_rows(named=True)}
    parts = [
        f"{split} {by_split[split]['scan']} scans ({by_split[split]['len']:,} slices)"
        for split in ("train", *JUDGED)
        if split in by_split
    ]
    kinds = ", ".join(
        f"{n} {str(modality).upper()}"
        for modality, n in run.slices.group_by("modality")
        .agg(pl.col("scan").n_unique())
        .sort("modality")
        .rows()
    )
    return (
        f"{run.slices.height:,} slices of {run.slices['scan'].n_unique()} scans ({kinds}): "
        f"{'; '.join(parts)}. {run.quarantine.height} volumes were left out. Written from the "
        "tables of this run; intervals (95%, in brackets) resample patients and are left out "
        "where there are fewer than five."
    )


def _short(run: ImagingRun) -> list[str]:
    points = []
    for encoder in [name for name in _ordered(run) if not is_control(name)]:
        rows = {row["base_model"]: row for row in _chosen_rows(run).iter_rows(named=True)}
        own, twin = rows.get(encoder), rows.get(encoder + RANDOM_SUFFIX)
        if own is None or own["recovery_at_10"] is None:
            points.append(f"**{encoder}**: no target could be recovered above chance.")
            continue
        beside = ""
        if twin is not None and twin["recovery_at_10"] is not None:
            beside = f" (random weights, of its own dense probes: {twin['recovery_at_10']:.0%})"
        points.append(
            f"**{encoder}**: ten features of {own['sae_config']} recover "
            f"{own['recovery_at_10']:.0%} of what the dense probes know above chance{beside}, "
            f"over {own['n_targets']:.0f} targets; {own['n_censored']:.0f} of "
            f"{own['n_goals']:.0f} goals were "
            "not reached with 100 features. Features whose slices share a concept more than "
            f"chance: {own['n_lift_found']:.0f} of {own['n_scored']:.0f} scored."
        )
    return points or ["Only controls were studied."]


def _chosen_rows(run: ImagingRun) -> pl.DataFrame:
    keys = pl.DataFrame(
        list(run.chosen.items()), schema={"base_model": pl.String, "sae_config": pl.String},
        orient="row",
    )  # fmt: skip
    return run.ranking.join(keys, on=["base_model", "sae_config"], how="semi")


def _probes(run: ImagingRun) -> list[Block]:
    for split in reversed(JUDGED):
        means = task_means(run.probes, split)
        if means.height:
            break
    else:
        return [Paragraph("No target could be estimated on held-out scans; see the reasons below.")]
    encoders = sorted(means["encoder"].unique(), key=lambda name: (is_control(name), name))
    rows = []
    for (task,), part in means.group_by("task", maintain_order=True):
        values = dict(part.select("encoder", "auroc").iter_rows())
        n, patients = part["n_targets"][0], part["n_patients"].min()
        rows.append((str(task), str(n), str(patients), *(f"{values[e]:.3f}" for e in encoders)))
    header = ("task", "targets", "fewest patients", *encoders)
    missing = run.probes.filter((pl.col("split") == split) & pl.col("auroc").is_null())
    n_missing = missing["target"].n_unique()
    return [
        Paragraph(
            f"Mean AUROC of elastic-net probes on the {split} scans, over the targets that every "
            f"encoder estimates. {n_missing} targets could not be estimated; linear_probes.csv "
            "says why."
        ),
        Table(header, tuple(rows)),
    ]


def _ranking(run: ImagingRun) -> list[Block]:
    rows = []
    for row in run.ranking.iter_rows(named=True):
        names = ("M_config", "M_config_fixed", "mean_n_features", "restricted_mean_n")
        numbers = [_number(row[name]) for name in names]
        places = [
            "" if row[name] is None else str(int(row[name]))
            for name in ("final_rank", "build_final_rank")
        ]
        rows.append((row["base_model"], row["sae_config"], *numbers, *places))
    header = (
        "encoder", "autoencoder", "M", "M, fixed size", "features needed", "with censored",
        "rank as published", "rank",
    )  # fmt: skip
    reasons = run.ranking.filter(pl.col("reason").is_not_null())
    blocks: list[Block] = [Table(header, tuple(rows), n_text=2)]
    if reasons.height:
        named = sorted({f"{r['base_model']}: {r['reason']}" for r in reasons.iter_rows(named=True)})
        blocks.append(Paragraph("Not ranked: " + "; ".join(named) + "."))
    return blocks


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _details(run: ImagingRun, encoder: str) -> tuple[str, ...]:
    points = []
    fingerprint = run.fingerprints[encoder]
    if fingerprint.height:
        points.append(_fingerprint(fingerprint))
    metrics = run.metrics[encoder]
    if metrics["n_tested"]:
        rate = {
            "value": metrics["success_rate"],
            "low": metrics["success_rate_low"],
            "high": metrics["success_rate_high"],
        }
        points.append(
            f"Names: the right description among the first two of five for {estimated(rate)} of "
            f"{metrics['n_tested']} features (chance {metrics['chance']:.2f}, interval over "
            f"features); named by {metrics['explainer']}, judged by {metrics['judge']}; "
            f"{metrics['n_descriptions_not_read'] + metrics['n_rankings_not_read']} answers could "
            f"not be read and count as failures, {metrics['n_not_tested']} features could not be "
            "tested."
        )
    else:
        points.append(f"Names: none of {metrics['n_selected']} features could be tested.")
    language = run.languages[encoder]
    rows = {
        row["method"]: row
        for row in language.filter(pl.col("attribute") == "all").iter_rows(named=True)
    }
    if rows:
        picked, chance = rows["picked"], rows["random features"]
        parts = ", ".join(
            f"{row['attribute']} {row['p_at_10']:.2f} ({row['prevalence']:.2f})"
            for row in language.filter(
                (pl.col("method") == "picked") & (pl.col("attribute") != "all")
            ).iter_rows(named=True)
        )
        points.append(
            f"Search by words: P@10 {picked['p_at_10']:.2f} over {picked['n_queries']} queries "
            f"(random described features {chance['p_at_10']:.2f}, prevalence "
            f"{picked['prevalence']:.2f}); by attribute (prevalence): {parts}."
        )
    return tuple(points)


def _fingerprint(summary: pl.DataFrame) -> str:
    def value(method: str, measure: str, k: int | None) -> str:
        part = summary.filter(
            (pl.col("method") == method)
            & (pl.col("measure") == measure)
            & (pl.col("k").is_null() if k is None else pl.col("k") == k)
        )
        return f"{part['mean'][0]:.2f}" if part.height else "–"

    parts = []
    for measure, words in (
        ("quality_published", "quality as published"),
        ("p_at_5_organs", "P@5 on organs"),
        ("p_at_5_plane", "P@5 on plane"),
    ):
        parts.append(
            f"{words} {value('fingerprint', measure, 10)} (embedding "
            f"{value('dense', measure, None)}, random order {value('random', measure, None)})"
        )
    return "Fingerprints of ten features: " + "; ".join(parts) + "."


def limits(run: ImagingRun) -> list[str]:
    """What this run cannot show, from its own numbers."""
    points = []
    patients = run.slices.group_by("split").agg(pl.col("patient_id").n_unique().alias("n"))
    counts = dict(patients.iter_rows())
    held_out = {split: counts.get(split, 0) for split in JUDGED}
    if min(held_out.values()) < FEW_PATIENTS:
        words = " and ".join(f"{n} {split} patients" for split, n in held_out.items())
        points.append(
            f"There are {words}: AUROCs, ranks and differences between encoders describe these "
            "scans. They are no estimate for other patients, scanners or hospitals."
        )
    scored = run.evaluation["scored_on"]
    n_scans = run.slices.filter(pl.col("split").is_in(scored))["scan"].n_unique()
    if n_scans < 50:
        points.append(
            f"Monosemanticity takes one slice per scan, and {' and '.join(scored)} hold {n_scans} "
            "scans: M50 and breadth mean what M10 means, and few features can differ from the "
            "shuffled null by more than chance."
        )
    for key, what in (
        ("scored_on", "monosemanticity was measured"),
        ("fingerprints_on", "fingerprints were searched"),
        ("language_on", "words were searched"),
    ):
        if "train" in run.evaluation[key]:
            points.append(
                f"To have enough scans, {what} on slices that the autoencoders were trained on "
                "as well (without labels)."
            )
    missing = run.probes.filter(pl.col("auroc").is_null())
    tasks = sorted(set(missing["task"]) - set(run.probes.drop_nulls("auroc")["task"]))
    if tasks:
        points.append(f"Nothing can be said about: {', '.join(tasks)}.")
    if run.slices["institute"].drop_nulls().n_unique() > 1:
        points.append(
            "Sites may differ in body region, resolution and labels at once: what tells modalities "
            "or organs apart may be the site."
        )
    points += [
        "A scan says nothing about structures that its labels do not cover, and where tools or "
        "atlases drew them, their errors count.",
        "The published fingerprint quality is high whenever embeddings are alike, labels or not: "
        "compare it with random order and with the encoder of random weights.",
    ]
    own = [name for name, metrics in run.metrics.items() if metrics["judge"] == f"probes of {name}"]
    if own:
        points.append(
            f"The names of {', '.join(own)} were judged by the same encoder, for want of another: "
            "that test is not independent."
        )
    if all(metrics["explainer"] == "labels" for metrics in run.metrics.values()):
        points.append(
            "Features are named by the labels and metadata of their slices: what has no label "
            "gets no name. No vision-language model was asked."
        )
    return points
