"""Slices of a volume: where they lie, what they show, which structures they cut.

Slices are square, of ``pixels`` × ``pixels``, and isotropic in millimetres: the central
square of the cut, resized with Lanczos. They are spaced ``step_mm`` apart and interpolated
between the two nearest planes of voxels. Shown as on a radiologist's screen: axial and
coronal with the patient's right on the left, sagittal with the front on the left, front or
head up.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsae.imaging.columns import PLANES
from medsae.imaging.intensity import to_grey
from medsae.imaging.volumes import Volume


@dataclass(frozen=True)
class Cuts:
    """Parallel slices of one volume."""

    plane: str
    numbers: NDArray[np.int64]  # [n], of each slice along its axis, counted in steps
    positions: NDArray[np.float64]  # [n], in voxels along the axis

    @property
    def axis(self) -> int:
        return PLANES.index(self.plane)


def plan_cuts(volume: Volume, plane: str, step_mm: float | None) -> Cuts:
    """All slices of ``volume`` in ``plane``; without ``step_mm`` one per plane of voxels."""
    axis = PLANES.index(plane)
    n, spacing = volume.data.shape[axis], volume.spacing[axis]
    step = 1.0 if step_mm is None else step_mm / spacing
    positions = np.arange(0, n - 1 + 1e-6, step) if n > 1 else np.zeros(1)
    return Cuts(plane, np.arange(len(positions)), np.minimum(positions, n - 1))


def thinned(cuts: Cuts, at_most: int | None) -> Cuts:
    """At most so many of the slices, evenly spaced from the first to the last."""
    if at_most is None or len(cuts.numbers) <= at_most:
        return cuts
    kept = np.unique(np.rint(np.linspace(0, len(cuts.numbers) - 1, at_most)).astype(int))
    return Cuts(cuts.plane, cuts.numbers[kept], cuts.positions[kept])


def trimmed(cuts: Cuts, hit: NDArray[np.bool_]) -> Cuts:
    """Without the slices before the first and after the last plane of voxels in ``hit``."""
    shown = np.flatnonzero(at(cuts, hit))
    if not shown.size:
        return cuts
    kept = slice(int(shown[0]), int(shown[-1]) + 1)
    return Cuts(cuts.plane, cuts.numbers[kept], cuts.positions[kept])


def mask_along(mask: NDArray[np.bool_], axis: int, volume: Volume) -> NDArray[np.bool_]:
    """Whether the central square of each plane of voxels along ``axis`` holds a mask voxel."""
    first, second = (other for other in range(3) if other != axis)
    inside: list[slice] = [slice(None)] * 3
    for other, (begin, end) in zip((first, second), _square(volume, axis), strict=True):
        # Voxel i covers [i, i + 1]: it counts if its centre lies in the square.
        inside[other] = slice(int(np.ceil(begin - 0.5)), int(np.floor(end - 0.5)) + 1)
    return np.asarray(mask[tuple(inside)].any(axis=(first, second)))


def at(cuts: Cuts, planes: NDArray) -> NDArray:
    """What ``planes`` [planes of voxels] says of the plane nearest to each slice [n]."""
    return planes[np.floor(cuts.positions + 0.5).astype(np.int64)]


def render(volume: Volume, cuts: Cuts, low: float, high: float, pixels: int) -> NDArray[np.uint8]:
    """Grey values uint8 [n, pixels, pixels] of the slices, ``low`` black and ``high`` white."""
    out = np.empty((len(cuts.positions), pixels, pixels), np.uint8)
    along = np.moveaxis(volume.data, cuts.axis, 0)
    (left, right), (bottom, top) = _square(volume, cuts.axis)
    width, height = along.shape[1:]
    # Rows run from the top, and only the sagittal's columns from the front, so all are flipped.
    box = (width - right, height - top, width - left, height - bottom)
    for row, position in enumerate(cuts.positions):
        below = int(position)
        share = position - below
        plane = along[below].astype(np.float32)
        if share > 0:
            plane = (1 - share) * plane + share * along[below + 1]
        grey = to_grey(plane, low, high)[::-1, ::-1].T
        image = Image.fromarray(np.ascontiguousarray(grey))
        out[row] = np.asarray(image.resize((pixels, pixels), Image.Resampling.LANCZOS, box=box))
    return out


def render_labels(volume: Volume, cuts: Cuts, pixels: int) -> NDArray[np.uint16]:
    """Labels uint16 [n, pixels, pixels] on the same pixels as ``render``, of the nearest voxel."""
    first, second = (other for other in range(3) if other != cuts.axis)
    index = []
    for other, (begin, end) in zip((first, second), _square(volume, cuts.axis), strict=True):
        centres = begin + (np.arange(pixels) + 0.5) * (end - begin) / pixels
        index.append(np.minimum(centres.astype(np.int64), volume.data.shape[other] - 1)[::-1])
    along = np.moveaxis(volume.data, cuts.axis, 0)
    nearest = at(cuts, along)
    return nearest[:, index[0][:, None], index[1]].transpose(0, 2, 1).astype(np.uint16)


def _square(volume: Volume, axis: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """The central square across ``axis``, as (begin, end) in voxels for each other axis."""
    first, second = (other for other in range(3) if other != axis)
    side = min(volume.extent_mm[first], volume.extent_mm[second])
    edges = []
    for other in (first, second):
        middle, half = volume.data.shape[other] / 2, side / volume.spacing[other] / 2
        edges.append((max(0.0, middle - half), min(float(volume.data.shape[other]), middle + half)))
    return edges[0], edges[1]
