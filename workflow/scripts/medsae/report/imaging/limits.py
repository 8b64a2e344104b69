"""What a run of the imaging study cannot show, from its own numbers."""

import polars as pl

from medsae.imaging.monosemanticity import MIN_POOL, MIN_SCANS
from medsae.imaging.probes import JUDGED
from medsae.report.imaging.run import ImagingRun

FEW_PATIENTS = 30
"""Below this, an interval over patients says little and a difference between encoders less."""


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
            "scans: M50 and breadth mean what M10 means. It is computed for features that were "
            f"seen on at least {MIN_SCANS} scans with comparable masks; whether coherence and lift "
            f"exceed chance is not estimable with fewer than {MIN_POOL} scans."
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
