"""Scans with planted structures, written as files."""

from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from medsae.imaging.slicing import SliceSettings
from medsae.imaging.sources import Scan

SHAPE, SPACING = (40, 48, 32), (2.0, 2.0, 3.0)
# Boxes in voxels of a RAS volume: left to right, back to front, foot to head.
STRUCTURES = {
    "liver": (slice(24, 34), slice(20, 30), slice(10, 20)),
    "heart": (slice(10, 20), slice(24, 36), slice(20, 30)),
    "corner": (slice(18, 22), slice(0, 2), slice(4, 8)),  # outside of the axial square
}
VALUES = {"liver": 60.0, "heart": 200.0, "corner": 120.0}
WINDOWS = {"thorax": (-200.0, 1400.0), "head": (40.0, 400.0), "other": (50.0, 1000.0)}


@dataclass
class Planted:
    """Arrays of a scan and its masks, in RAS."""

    data: np.ndarray
    masks: dict[str, np.ndarray]
    spacing: tuple[float, float, float] = SPACING
    affine: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.affine = np.diag([*self.spacing, 1.0])
        self.affine[:3, 3] = (-40, -50, -30)


def planted(modality: str = "ct") -> Planted:
    rng = np.random.default_rng(0)
    data = np.full(SHAPE, -1000.0) if modality == "ct" else np.zeros(SHAPE)
    data[4:36, 4:44, 2:30] = 20.0 + rng.normal(0, 5, (32, 40, 28))
    masks = {name: np.zeros(SHAPE, bool) for name in STRUCTURES}
    for name, box in STRUCTURES.items():
        data[box] = VALUES[name]
        masks[name][box] = True
    return Planted(np.rint(data).astype(np.int16), masks)


def save(path: Path, data: np.ndarray, affine: np.ndarray, axes: str = "RAS") -> None:
    """Write a RAS array as NIfTI with its axes stored as ``axes``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes))
    stored = nibabel.orientations.apply_orientation(data, change)
    place = affine @ inv_ornt_aff(change, data.shape)
    nibabel.save(nibabel.Nifti1Image(stored, place), path)


def write_scan(
    folder: Path, image_id: str, modality: str = "ct", axes: str = "RAS", **facts: object
) -> Scan:
    """A scan of planted structures with one mask file each."""
    truth = planted(modality)
    place = folder / image_id
    save(place / "volume.nii.gz", truth.data, truth.affine, axes)
    for name, mask in truth.masks.items():
        save(place / "masks" / f"{name}.nii.gz", mask.astype(np.uint8), truth.affine, axes)
    paths = {"volume": str(place / "volume.nii.gz"), "masks": str(place / "masks")}
    return Scan(modality, image_id, **paths, **{"patient_id": image_id} | facts)


@pytest.fixture
def settings() -> SliceSettings:
    planes = ["axial", "coronal", "sagittal"]
    return SliceSettings(
        pixels=32,
        planes={"ct": planes, "mr": planes},
        min_side_mm=10.0,
        max_anisotropy=3.0,
        step_mm=None,
        windows=WINDOWS,
        n4=False,
        trim=False,
        max_per_plane=None,
        overlays=True,
    )
