"""The imaging study in words: what was found, and what so few scans cannot show."""

from typing import Any

import polars as pl

from medsae.imaging.columns import CHOOSING, HELD_OUT, SPLITS
from medsae.imaging.probes import JUDGED
from medsae.imaging.ranking import AT
from medsae.report.document import Block, Bullets, Heading, Paragraph, Table
from medsae.report.imaging.limits import limits
from medsae.report.imaging.probes import task_means
from medsae.report.imaging.recovery import mean_curves
from medsae.report.imaging.run import ImagingRun
from medsae.report.phrases import estimated


SHIFTED = 1.5
"""Times the unexplained variance of the training scans from which other scans count as shifted."""


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
    for encoder in run.ordered:
        blocks += [Heading(2, f"{encoder}: {run.chosen[encoder]}"), Bullets(_details(run, encoder))]
    if run.quarantine.height:
        rows = tuple((str(a), str(b)) for a, b in run.quarantine.select("source", "reason").rows())
        blocks += [
            Heading(2, "Volumes that were left out"),
            Table(("source", "reason"), rows, n_text=2),
        ]
    blocks += [Heading(2, "What cannot be concluded"), Bullets(tuple(limits(run)))]
    return blocks


def front_page(run: ImagingRun) -> list[Block]:
    """What the report begins with: the scans, and what was found in short."""
    return [Paragraph(_scans(run)), Bullets(tuple(_short(run)))]


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
    chosen = {row["base_model"]: row for row in _chosen_rows(run).iter_rows(named=True)}
    for encoder in [name for name in run.ordered if name not in run.controls]:
        own = chosen[encoder]
        if own["collapsed"]:
            points.append(
                f"**{encoder}**: no autoencoder can be used; of {own['sae_config']}: "
                f"{own['reason']}. Nothing said of its features below means anything."
            )
            continue
        points.append(_recovered(run, encoder))
        points.append(
            f"**{encoder}**: {_found(own)}. Variance left unexplained, and active latents per row: "
            f"{_over_splits(own)}{_shift(own)}"
        )
    return points or ["Only controls were studied."]


def _recovered(run: ImagingRun, encoder: str) -> str:
    """What ten features recover on held-out scans, the control on the same targets beside it."""
    twin = next((name for name, of in run.controls.items() if of == encoder), None)
    lost = {r["base_model"]: r["reason"] for r in _chosen_rows(run).iter_rows(named=True)
            if r["collapsed"]}  # fmt: skip
    pair = [encoder] if twin is None or twin in lost else [encoder, twin]
    curves = mean_curves(run.recovery.filter(pl.col("base_model").is_in(pair)), HELD_OUT)
    rows = {
        row["base_model"]: row
        for row in curves.filter(pl.col("n_features") == AT).iter_rows(named=True)
    }
    if encoder not in rows:
        return (
            f"**{encoder}**: no target whose dense probe is above chance on the {HELD_OUT} scans"
            + (" with trained and with random weights." if len(pair) == 2 else ".")
        )
    own = rows[encoder]
    beside = ""
    if twin in lost:
        beside = f"; random weights: no autoencoder can be used ({lost[twin]})"
    elif twin in rows:
        beside = (
            f"; random weights: {rows[twin]['auroc']:.2f} where its embedding reaches "
            f"{rows[twin]['auroc_dense']:.2f}, {rows[twin]['recovery_above_chance']:.0%}"
        )
    return (
        f"**{encoder}**, {HELD_OUT} scans: ten features of {own['sae_config']} reach a mean AUROC "
        f"of {own['auroc']:.2f} where the embedding reaches {own['auroc_dense']:.2f}, "
        f"{own['recovery_above_chance']:.0%} of what it knows above chance{beside}. Over "
        f"{own['n_targets']} targets; the autoencoder was chosen on {CHOOSING} scans."
    )


def _found(own: dict[str, Any]) -> str:
    if not own["n_lift_tested"]:
        return (
            "whether its features' slices share a concept more than chance is not estimable with "
            "so few scans"
        )
    return (
        f"features whose slices share a concept more than chance: {own['n_lift_found']:.0f} of "
        f"{own['n_lift_tested']:.0f} tested"
    )


def _over_splits(own: dict[str, Any]) -> str:
    return ", ".join(
        f"{split} {_number(own[f'{split}_fvu'])} and {_number(own[f'{split}_l0'])}"
        for split in SPLITS
    )


def _shift(own: dict[str, Any]) -> str:
    """A remark where other scans are not what the autoencoder learned."""
    if own["val_fvu"] > SHIFTED * own["train_fvu"]:
        return ": the scans differ from those it learned from (domain shift)."
    return "."


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
    known = run.controls
    encoders = sorted(means["encoder"].unique(), key=lambda name: (name in known, name))
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
        places += [_number(row[f"{split}_{name}"]) for name in ("fvu", "l0") for split in JUDGED]
        kind = f" ({row['control']})" if row["control"] else ""
        rows.append((row["base_model"] + kind, row["sae_config"], *numbers, *places))
    header = (
        "encoder", "autoencoder", "M", "M, fixed size", "features needed", "with censored",
        "rank as published", "rank",
        *(f"{name} {split}" for name in ("FVU", "L0") for split in JUDGED),
    )  # fmt: skip
    reasons = run.ranking.filter(pl.col("reason").is_not_null())
    blocks: list[Block] = [Table(header, tuple(rows), n_text=2)]
    if reasons.height:
        named = [
            f"{r['base_model']} {r['sae_config']}: {r['reason']}"
            for r in reasons.iter_rows(named=True)
        ]
        blocks += [Paragraph("Without a rank:"), Bullets(tuple(named))]
    return blocks


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _details(run: ImagingRun, encoder: str) -> tuple[str, ...]:
    own = _chosen_rows(run).filter(base_model=encoder).row(0, named=True)
    points = []
    if own["collapsed"]:
        points.append(f"{own['reason']}. Nothing said of its features means anything.")
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
            f"(as many random described features {chance['p_at_10']:.2f}, prevalence "
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
