"""Which scans the SAE learns from, which validate it, and which are held out to the end.

Test: the scans of the institutes named by the configuration. Where no scan of a modality
comes from one of them, or institutes are not known, a share of its patients is drawn
instead. The rest is divided into train and val. All scans of a patient share a split.
Draws are stratified by modality, sex and age group; patients of unknown sex or age form
strata of their own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from medsae.io import UserError
from medsae.statistics import stream

AGE_EDGES = (40, 60, 80)


def assign_splits(
    scans: pl.DataFrame,
    test_institutes: Sequence[str],
    test_fraction: float,
    val_fraction: float,
    seed: int,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """(scan, modality, image_id, split) sorted by scan, and what was done, for the report.

    ``scans`` has scan, modality, image_id, patient_id, institute, sex, age. Raises
    ``UserError`` if train or val would be empty.
    """
    scans = scans.sort("scan")
    held_out = set(
        scans.filter(pl.col("institute").is_in(list(test_institutes)))["patient_id"].to_list()
    )
    drawn_for = []
    patients = _patients(scans)
    for modality in scans["modality"].unique().sort().to_list():
        own = patients.filter(pl.col("modality") == modality)
        if not held_out & set(own["patient_id"].to_list()):
            drawn_for.append(modality)
            held_out |= set(draw_share(own, test_fraction, seed, f"test {modality}"))
    rest = patients.filter(~pl.col("patient_id").is_in(list(held_out)))
    val = set(draw_share(rest, val_fraction, seed, "val"))
    patient = pl.col("patient_id")
    split = (
        pl.when(patient.is_in(list(held_out))).then(pl.lit("test"))
        .when(patient.is_in(list(val))).then(pl.lit("val"))
        .otherwise(pl.lit("train"))
    )  # fmt: skip
    found = scans.select("scan", "modality", "image_id", split=split)
    counts = dict(found["split"].value_counts().iter_rows())
    for name in ("train", "val"):
        if not counts.get(name):
            raise UserError(
                f"imaging: {scans.height} scans of {patients.height} patients leave none for "
                f"{name}: add scans, or lower `test_fraction` and `val_fraction`."
            )
    note = {
        "scans": {name: counts.get(name, 0) for name in ("train", "val", "test")},
        "patients": patients.height,
        "test_institutes": sorted(set(test_institutes) & set(scans["institute"].to_list())),
        "test_drawn_for": drawn_for if test_fraction else [],
        "scans_without": {key: int(scans[key].null_count()) for key in ("institute", "sex", "age")},
    }
    return found, note


def draw_share(patients: pl.DataFrame, share: float, seed: int, purpose: str) -> list[str]:
    """``share`` of the patients, in proportion from each stratum.

    Patients are put in random order within strata, the strata one after the other, and
    every (1 / share)-th is taken from a random start: strata too small for a whole patient
    still count. At least one is taken unless ``share`` is 0.
    """
    if not share or not patients.height:
        return []
    rng = stream(seed, "splits", purpose)
    lottery = rng.random(patients.height)
    ordered = patients.sort("patient_id").with_columns(lottery=pl.Series(lottery))
    names = ordered.sort("stratum", "lottery")["patient_id"].to_list()
    n = max(1, round(share * len(names)))
    picks = np.floor((np.arange(n) + rng.random()) * len(names) / n).astype(int)
    return [names[pick] for pick in picks]


def _patients(scans: pl.DataFrame) -> pl.DataFrame:
    """(patient_id, modality, stratum) of each patient, from the first of the scans."""
    first = scans.group_by("patient_id", maintain_order=True).first()
    age_group = pl.col("age").cut(list(AGE_EDGES), left_closed=True).cast(pl.String)
    stratum = pl.concat_str(
        "modality", pl.col("sex").fill_null("?"), age_group.fill_null("?"), separator=" "
    )
    return first.select("patient_id", "modality", stratum=stratum)
