"""One scan from disk: NIfTI, a DICOM series, NRRD or MetaImage, as an array in a stated frame.

Every volume is brought to RAS+: axis 0 grows towards the patient's right, axis 1 to the
front, axis 2 to the head. Axes are flipped and swapped, never resampled: an oblique volume
keeps its grid and is named after the nearest anatomical axes.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from medsae.imaging.dicom import read_series, read_with_itk
from medsae.io import UserError

NIFTI = (".nii", ".nii.gz")
TO_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
SPACING_MM = (0.01, 25.0)
"""Voxel edges outside this range are not millimetres."""
HU_FAT = -50.0
"""Some voxel of every CT is fat or air; a CT without one is not in Hounsfield units."""


@dataclass(frozen=True)
class Volume:
    """A scan or mask in RAS+."""

    data: NDArray  # [x, y, z]
    spacing: tuple[float, float, float]  # mm
    affine: NDArray[np.float64]  # [4, 4], voxel -> mm

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        x, y, z = (n * s for n, s in zip(self.data.shape, self.spacing, strict=True))
        return x, y, z


def read_volume(path: str | Path) -> Volume:
    """The volume at ``path``: a file, or a folder that holds one DICOM series.

    Raises ``UserError`` naming the file if it is missing, truncated, not three-dimensional,
    coloured, holds NaN or infinities, or if its voxels are not of millimetre size.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder.")
    if path.is_dir():
        data, affine = read_series(path)
    elif path.name.lower().endswith(NIFTI):
        data, affine = _read_nifti(path)
    else:
        data, affine = read_with_itk(path)
    data = _three_dimensional(path, data)
    return _in_ras(path, data, affine)


def check_scan(path: str | Path, volume: Volume, modality: str) -> None:
    """Raise ``UserError`` if the values of a scan cannot be what ``modality`` says."""
    low, high = float(volume.data.min()), float(volume.data.max())
    if low == high:
        raise UserError(f"{path}: every voxel is {low:g}; there is no image.")
    if modality == "ct" and not low < HU_FAT < high:
        raise UserError(
            f"{path}: values from {low:g} to {high:g} are not Hounsfield units: no voxel is air or "
            "fat. Give the CT with its rescale slope and intercept applied."
        )


def _read_nifti(path: Path) -> tuple[NDArray, NDArray[np.float64]]:
    try:
        image = nibabel.load(path)
        data = np.asanyarray(image.dataobj)  # type: ignore[attr-defined]
    except (ImageFileError, HeaderDataError, EOFError, OSError, ValueError, zlib.error) as error:
        raise UserError(
            f"{path}: cannot be read ({type(error).__name__}); it is truncated or not a NIfTI file."
        ) from None
    affine = image.affine  # type: ignore[attr-defined]
    if affine is None or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) == 0:
        raise UserError(f"{path}: its header has no usable orientation; correct the affine.")
    try:
        millimetres = TO_MM[image.header.get_xyzt_units()[0]]  # type: ignore[attr-defined]
    except KeyError:
        raise UserError(f"{path}: its header has no unit of length; correct it.") from None
    affine = np.diag([millimetres] * 3 + [1.0]) @ affine
    return data, affine


def _three_dimensional(path: Path, data: NDArray) -> NDArray:
    if data.dtype.names is not None:
        raise UserError(f"{path}: is a colour image; give the grey values.")
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise UserError(
            f"{path}: has {data.ndim} dimensions {list(data.shape)}; give one volume per file."
        )
    if 0 in data.shape:
        raise UserError(f"{path}: is empty.")
    if data.dtype.kind == "f":
        data = data.astype(np.float32, copy=False)
        if not np.isfinite(data).all():
            n = int(data.size - np.isfinite(data).sum())
            raise UserError(f"{path}: {n} voxels are NaN or infinite.")
    elif data.dtype.kind not in "iub":
        raise UserError(f"{path}: voxels of type {data.dtype} are no grey values.")
    return data


def _in_ras(path: Path, data: NDArray, affine: NDArray[np.float64]) -> Volume:
    flips = io_orientation(affine)
    affine = affine @ inv_ornt_aff(flips, data.shape)
    data = apply_orientation(data, flips)
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(0))
    if not ((spacing >= SPACING_MM[0]) & (spacing <= SPACING_MM[1])).all():
        size = " × ".join(f"{edge:g}" for edge in spacing)
        raise UserError(f"{path}: voxels of {size} mm: the spacing is not in millimetres.")
    x, y, z = (float(edge) for edge in spacing)
    return Volume(data, (x, y, z), affine)
