"""DICOM series, and whatever else ITK reads (NRRD, MetaImage), with an affine in RAS mm."""

from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from medsae.io import UserError

POSITION, ORIENTATION = "0020|0032", "0020|0037"
UNEVEN = 0.05
"""Steps between neighbouring slices may differ by this share; beyond, a slice is missing."""

Image = tuple[NDArray, NDArray[np.float64]]

SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)


def read_series(folder: Path) -> Image:
    """The one DICOM series in ``folder``: array [i, j, k] and affine [4, 4] to RAS mm.

    Values have rescale slope and intercept applied. Raises ``UserError`` naming the folder
    if it holds no series or several, if a file is damaged, or if slices are missing.
    """
    reader = SimpleITK.ImageSeriesReader()
    series = reader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise UserError(f"{folder}: holds no DICOM series.")
    if len(series) > 1:
        raise UserError(f"{folder}: holds {len(series)} DICOM series; give each its own folder.")
    files = reader.GetGDCMSeriesFileNames(str(folder), series[0])
    _check_steps(folder, files)
    reader.SetFileNames(files)
    try:
        return _as_array(reader.Execute())
    except RuntimeError:
        raise UserError(f"{folder}: a file of the DICOM series cannot be read.") from None


def read_with_itk(path: Path) -> Image:
    """A file in one of ITK's formats; raises ``UserError`` naming it if it cannot be read."""
    try:
        return _as_array(SimpleITK.ReadImage(str(path)))
    except RuntimeError:
        raise UserError(
            f"{path}: cannot be read; it is truncated or of a format that ITK does not know."
        ) from None


def _as_array(image: SimpleITK.Image) -> Image:
    if image.GetNumberOfComponentsPerPixel() > 1:
        data = np.moveaxis(SimpleITK.GetArrayFromImage(image), -1, 0).T
    else:
        data = SimpleITK.GetArrayFromImage(image).T
    n = image.GetDimension()
    affine = np.eye(4)
    if n >= 3:
        direction = np.array(image.GetDirection()).reshape(n, n)[:3, :3]
        affine[:3, :3] = direction * np.array(image.GetSpacing())[:3]
        affine[:3, 3] = image.GetOrigin()[:3]
    return data, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # ITK counts to the left and back


def _check_steps(folder: Path, files: tuple[str, ...]) -> None:
    if len(files) < 3:
        return
    positions = []
    reader = SimpleITK.ImageFileReader()
    for name in files:
        reader.SetFileName(name)
        try:
            reader.ReadImageInformation()
            values = [float(part) for part in reader.GetMetaData(POSITION).split("\\")]
            axes = [float(part) for part in reader.GetMetaData(ORIENTATION).split("\\")]
        except (RuntimeError, ValueError):
            raise UserError(f"{name}: cannot be read, or has no position in the patient.") from None
        positions.append(np.dot(values, np.cross(axes[:3], axes[3:])))
    steps = np.abs(np.diff(positions))
    if steps.min() <= 0 or steps.max() > steps.min() * (1 + UNEVEN):
        raise UserError(
            f"{folder}: steps between slices run from {steps.min():.3g} to {steps.max():.3g} mm: "
            "slices are missing or doubled."
        )
