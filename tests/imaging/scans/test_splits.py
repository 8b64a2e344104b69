"""Splits hold institutes and patients apart, and say what they did."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsae.imaging.splits import assign_splits
from medsae.io import UserError


def scans(n, institute=None, sex=None, age=None, modality=None, patient=None):
    def column(values):
        return [values[i % len(values)] for i in range(n)] if values else [None] * n

    names = [f"s{i:04d}" for i in range(n)]
    return pl.DataFrame(
        {
            "scan": names,
            "modality": column(modality or ["ct"]),
            "image_id": names,
            "patient_id": column(patient) if patient else names,
            "institute": column(institute),
            "sex": column(sex),
            "age": column(age),
        },
        schema_overrides={"institute": pl.String, "sex": pl.String, "age": pl.Float32},
    )


def split(frame, institutes=("A", "D", "E"), test=0.2, val=0.2, seed=42):
    return assign_splits(frame, institutes, test, val, seed)


def test_the_scans_of_the_named_institutes_are_the_test_split():
    frame = scans(100, institute=["A", "B", "C", "D", None])
    found, note = split(frame)
    held = found.join(frame, on="scan").filter(split="test")["institute"]
    assert sorted(held.unique()) == ["A", "D"]
    assert len(held) == 40
    assert note["test_institutes"] == ["A", "D"]
    assert note["test_drawn_for"] == []
    assert note["scans"] == {"train": 48, "val": 12, "test": 40}


def test_without_institutes_a_share_is_drawn_and_said():
    found, note = split(scans(50))
    assert note["test_drawn_for"] == ["ct"]
    assert note["scans"] == {"train": 32, "val": 8, "test": 10}
    assert note["scans_without"] == {"institute": 50, "sex": 50, "age": 50}
    assert found.columns == ["scan", "modality", "image_id", "split"]


def test_a_modality_without_the_institutes_is_drawn_from_alone():
    frame = scans(60, institute=["A", None, "B"], modality=["ct", "mr", "ct"])
    found, note = split(frame)
    assert note["test_drawn_for"] == ["mr"]
    counts = found.filter(split="test").group_by("modality").len()
    assert dict(counts.iter_rows()) == {"ct": 20, "mr": 4}


def test_train_and_val_are_stratified():
    frame = scans(400, sex=["m", "f", "m"], age=[30.0, 50.0, 70.0, 90.0], modality=["ct", "mr"])
    found, _ = split(frame, test=0)
    joined = found.join(frame, on="scan")
    joined = joined.with_columns(old=pl.col("age") >= 60)
    shares = joined.group_by("modality", "sex", "old").agg((pl.col("split") == "val").mean())
    assert shares["split"].is_between(0.17, 0.23).all()


def test_scans_of_a_patient_share_a_split():
    frame = scans(60, patient=[f"p{i}" for i in range(20)], modality=["ct", "mr", "mr"])
    found, note = split(frame)
    per_patient = (
        found.join(frame, on="scan").group_by("patient_id").agg(pl.col("split").n_unique())
    )
    assert per_patient["split"].max() == 1
    assert note["patients"] == 20


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 40), st.integers(0, 9), st.randoms(use_true_random=False))
def test_the_order_of_the_scans_does_not_matter(n, seed, random):
    frame = scans(n, institute=["A", "B", None], sex=["m", None], age=[None, 61.0, 39.0])
    order = list(range(n))
    random.shuffle(order)
    assert split(frame, seed=seed)[0].equals(split(frame[order], seed=seed)[0])


def test_another_seed_is_another_draw():
    assert not split(scans(50), seed=1)[0].equals(split(scans(50), seed=2)[0])


def test_too_few_scans_to_divide_are_refused():
    with pytest.raises(UserError, match="leave none for"):
        split(scans(2))
    with pytest.raises(UserError, match="leave none for train"):
        split(scans(5, institute=["A"]))
