"""Structures of a scan from its masks: one file per structure, or one map of labels."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medsae.imaging.volumes import NIFTI, Volume, read_volume
from medsae.io import UserError

APART = 0.5
"""A mask whose corner lies more than this many voxels from the scan's is of another scan."""


def structures(
    masks: str | Path, labels: Mapping[int, str] | None, scan: Volume
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield (name, mask [x, y, z]) of every structure that ``masks`` could show of ``scan``.

    ``masks`` is a folder with one NIfTI file per structure, named after it, or one file. A
    file with ``labels`` (value -> name) holds several structures; without, it holds one.
    Empty masks are yielded too: the structure was looked for and is absent.

    Raises ``UserError`` naming the file if a mask cannot be read, has another shape or
    place than the scan, or holds a value that ``labels`` does not name.
    """
    masks = Path(masks)
    if masks.is_dir():
        files = sorted(path for path in masks.iterdir() if path.name.endswith(NIFTI))
        if not files:
            raise UserError(f"{masks}: holds no masks (*.nii.gz).")
        for path in files:
            yield structure_name(path), _read(path, scan) > 0
    elif labels:
        yield from _split(masks, _read(masks, scan), labels)
    else:
        yield structure_name(masks), _read(masks, scan) > 0


def structure_name(path: Path) -> str:
    """``liver`` for ``segmentations/liver.nii.gz``."""
    return path.name.partition(".")[0]


def read_labels(path: str | Path) -> dict[int, str]:
    """Names of label values from a CSV with the columns value and name; 0 is background.

    Raises ``UserError`` naming the file and what is wrong with it.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
        named = {int(row["value"]): row["name"].strip() for row in rows}
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path}: the names of the labels cannot be read.") from None
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path}: needs the columns value (a whole number) and name.") from None
    if not named:
        raise UserError(f"{path}: names no label.")
    named.pop(0, None)
    return named


def _read(path: Path, scan: Volume) -> NDArray:
    mask = read_volume(path)
    if mask.data.shape != scan.data.shape:
        raise UserError(
            f"{path}: the mask has {list(mask.data.shape)} voxels, its scan "
            f"{list(scan.data.shape)} (axes right, front, head)."
        )
    apart = np.abs(mask.affine[:3] - scan.affine[:3]) / np.array(scan.spacing)[:, None]
    ends = apart[:, :3] * (np.array(mask.data.shape) - 1)
    if (apart[:, 3] + ends.sum(1) > APART).any():
        raise UserError(f"{path}: the mask does not lie where its scan lies; correct its header.")
    return mask.data


def _split(
    path: Path, data: NDArray, labels: Mapping[int, str]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    present = set(np.unique(data).tolist()) - {0}
    unnamed = sorted(present - set(labels))
    if unnamed:
        raise UserError(f"{path}: holds the label {unnamed[0]:g}, which has no name.")
    for value, name in sorted(labels.items()):
        yield name, data == value if value in present else np.zeros(data.shape, bool)
