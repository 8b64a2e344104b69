"""From one scan to its slices on disk: pixels, index rows, structures.

``slices/{scan}.safetensors`` holds ``pixels`` uint8 [n, size, size]; row i belongs to row i
of ``slices/{scan}.parquet``. The table is written last: a scan whose table carries the
fingerprint of its files and settings is done and is not sliced again.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file

from medsae.imaging.columns import PLANES
from medsae.imaging.intensity import correct_bias, percentile_range, window_of
from medsae.imaging.masks import read_labels, structures
from medsae.imaging.slices import (
    Cuts,
    at,
    mask_along,
    plan_cuts,
    render,
    render_labels,
    thinned,
    trimmed,
)
from medsae.imaging.sources import Scan
from medsae.imaging.volumes import Volume, check_scan, read_volume
from medsae.io import UserError, atomic_path

FORMAT = 2
"""Raised when the same settings would give other slices."""


@dataclass(frozen=True)
class SliceSettings:
    """How volumes become slices.

    ``planes``  per modality: names, or ``acquisition`` for slices along the axis with the
                fewest planes of voxels, the first of them in a tie
    ``min_side_mm``, ``max_anisotropy``  planes whose square would be smaller, or whose
                voxels would be longer than wide by a larger factor, are left out
    ``step_mm`` from slice to slice; None is one slice per plane of voxels
    ``trim``    leave out the slices before the first and after the last structure
    ``max_per_plane``  thin the slices of a plane evenly to so many
    ``overlays``  keep the masks of the slices too, to draw them
    ``png``     write each slice as ``png/{scan}/{x,y,z}_slice_0000.png`` too
    """

    pixels: int
    planes: Mapping[str, str | Sequence[str]]
    min_side_mm: float
    max_anisotropy: float
    step_mm: float | None
    windows: Mapping[str, Sequence[float]]
    n4: bool
    trim: bool
    max_per_plane: int | None
    overlays: bool
    png: bool = False


SCHEMA: dict[str, Any] = {
    "slice_key": pl.String,
    "scan": pl.String,
    "modality": pl.String,
    "image_id": pl.String,
    "plane": pl.String,
    "slice_index": pl.UInt32,
    "patient_id": pl.String,
    "institute": pl.String,
    "sex": pl.String,
    "age": pl.Float32,
    "study_type": pl.String,
    "organs": pl.List(pl.String),
}


@dataclass(frozen=True)
class SlicedScan:
    """The slices of one scan."""

    pixels: NDArray[np.uint8]  # [n, size, size]
    rows: pl.DataFrame  # n index rows
    facts: dict[str, Any]
    """``structures`` that the masks could show (None without masks), ``spacing`` in mm and
    ``shape`` of the volume, lowest and highest value ``shown``."""
    overlay: NDArray[np.uint16] | None = None
    """[n, size, size]: 1 + index in ``structures``; 0 is none."""


def slice_scan(scan: Scan, settings: SliceSettings) -> SlicedScan:
    """The slices of ``scan``; raises ``UserError`` naming the file that is bad."""
    volume = read_volume(scan.volume)
    check_scan(scan.volume, volume, scan.modality)
    planes = planes_of(volume, settings.planes[scan.modality], settings)
    if not planes:
        extent = " × ".join(f"{side:.0f}" for side in volume.extent_mm)
        raise UserError(
            f"{scan.volume}: {extent} mm in voxels of up to {max(volume.spacing):g} mm leave no "
            "plane to cut; see `min_side_mm` and `max_anisotropy`."
        )
    shown, overlay = _structures_along(scan, volume, planes, settings.overlays)
    low, high, grey = _range(scan, volume, settings)
    pixels, tables, labels = [], [], []
    for plane in planes:
        cuts = plan_cuts(volume, plane, settings.step_mm)
        if shown and settings.trim:
            cuts = trimmed(cuts, np.logical_or.reduce([*shown[plane].values()]))
        cuts = thinned(cuts, settings.max_per_plane)
        pixels.append(render(grey, cuts, low, high, settings.pixels))
        if overlay is not None:
            labels.append(render_labels(overlay, cuts, settings.pixels))
        tables.append(_rows(scan, cuts, shown[plane] if shown is not None else None))
    facts = {
        "structures": None if shown is None else list(shown[planes[0]]),
        "spacing": list(volume.spacing),
        "shape": list(volume.data.shape),
        "shown": [low, high],
    }
    drawn = np.concatenate(labels) if labels else None
    return SlicedScan(np.concatenate(pixels), pl.concat(tables), facts, drawn)


def planes_of(volume: Volume, wanted: str | Sequence[str], settings: SliceSettings) -> list[str]:
    """Names of the planes to cut ``volume`` in, of those ``wanted``."""
    if wanted == "acquisition":
        wanted = [PLANES[int(np.argmin(volume.data.shape))]]
    found = []
    for plane in PLANES:
        axis = PLANES.index(plane)
        extent = np.delete(volume.extent_mm, axis)
        spacing = np.delete(volume.spacing, axis)
        if extent.min() < settings.min_side_mm:
            continue
        if spacing.max() > settings.max_anisotropy * spacing.min():
            continue
        if plane in wanted:
            found.append(plane)
    return found


def fingerprint(scan: Scan, settings: SliceSettings) -> str:
    """Changes with the scan's files (name, size, time), what is known of it, and the settings."""
    files = []
    for place in filter(None, (scan.volume, scan.masks, scan.labels)):
        path = Path(place)
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        files += [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in inside if f.exists()]
    text = json.dumps([FORMAT, scan.to_dict(), asdict(settings), files], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_slices(folder: str | Path, scan: Scan, settings: SliceSettings) -> pl.DataFrame:
    """Slice ``scan`` into ``folder`` unless that is done; return its index rows.

    Raises ``UserError`` naming the file that is bad.
    """
    folder = Path(folder)
    mark = fingerprint(scan, settings)
    table_path = folder / f"{scan.name}.parquet"
    if stored_fingerprint(table_path) == mark:
        return pl.read_parquet(table_path)
    sliced = slice_scan(scan, settings)
    tensors: dict[str, NDArray] = {"pixels": sliced.pixels}
    note = {"fingerprint": mark}
    if sliced.overlay is not None:
        tensors["mask"] = sliced.overlay
        names = enumerate(sliced.facts["structures"], start=1)
        note["organs"] = json.dumps({str(label): name for label, name in names})
    with atomic_path(folder / f"{scan.name}.safetensors") as temporary:
        # safetensors writes the buffer as it lies in memory
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, temporary, note)
    if settings.png:
        write_png(folder / "png" / scan.name, sliced.pixels, sliced.rows)
    with atomic_path(table_path) as temporary:
        note = {"fingerprint": mark, "facts": json.dumps(sliced.facts)}
        sliced.rows.write_parquet(temporary, metadata=note)
    return sliced.rows


def write_png(folder: Path, pixels: NDArray[np.uint8], rows: pl.DataFrame) -> None:
    """Write slice i as ``{x,y,z}_slice_0000.png``: x is sagittal, y coronal, z axial."""
    folder.mkdir(parents=True, exist_ok=True)
    axis = dict(zip(PLANES, "xyz", strict=True))
    for image, plane, number in zip(pixels, rows["plane"], rows["slice_index"], strict=True):
        Image.fromarray(image).save(folder / f"{axis[plane]}_slice_{number:04d}.png")


def stored_fingerprint(path: Path) -> str | None:
    """The fingerprint of a table of slices, or None if there is no such table."""
    return pl.read_parquet_metadata(path).get("fingerprint") if path.exists() else None


def stored_facts(path: Path) -> dict[str, Any]:
    """The facts of a scan, as ``slice_scan`` returns them."""
    return json.loads(pl.read_parquet_metadata(path)["facts"])


def _structures_along(
    scan: Scan, volume: Volume, planes: Sequence[str], overlays: bool
) -> tuple[dict[str, dict[str, NDArray[np.bool_]]] | None, Volume | None]:
    """Per plane and structure, which planes of voxels show it; and all structures as labels.

    Where structures overlap, the label is that of the last; without masks both are None.
    """
    if scan.masks is None:
        return None, None
    labels = read_labels(scan.labels) if scan.labels else None
    found: dict[str, dict[str, NDArray[np.bool_]]] = {plane: {} for plane in planes}
    drawn = np.zeros(volume.data.shape, np.uint16) if overlays else None
    for number, (name, mask) in enumerate(structures(scan.masks, labels, volume), start=1):
        for plane in planes:
            found[plane][name] = mask_along(mask, PLANES.index(plane), volume)
        if drawn is not None:
            drawn[mask] = number
    overlay = None if drawn is None else replace(volume, data=drawn)
    return found, overlay


def _range(scan: Scan, volume: Volume, settings: SliceSettings) -> tuple[float, float, Volume]:
    """Lowest and highest value shown, and the volume they are values of."""
    if scan.modality == "ct":
        return *window_of(scan.study_type, settings.windows), volume
    try:
        grey = correct_bias(volume) if settings.n4 else volume
        return *percentile_range(grey.data), grey
    except RuntimeError:
        raise UserError(f"{scan.volume}: N4 finds no foreground.") from None
    except UserError as error:
        raise UserError(f"{scan.volume}: {error}") from None


def _rows(scan: Scan, cuts: Cuts, shown: Mapping[str, NDArray[np.bool_]] | None) -> pl.DataFrame:
    organs: list[list[str]] | None = None
    if shown is not None:
        hits = {name: at(cuts, planes) for name, planes in shown.items()}
        organs = [[name for name in hits if hits[name][row]] for row in range(len(cuts.numbers))]
    prefix = f"{scan.modality}/{scan.image_id}/{cuts.plane}/"
    frame = pl.DataFrame(
        {
            "slice_key": [f"{prefix}{number:04d}" for number in cuts.numbers.tolist()],
            "slice_index": cuts.numbers,
            "organs": pl.Series(organs, dtype=pl.List(pl.String)) if organs is not None else None,
        }
    ).with_columns(
        scan=pl.lit(scan.name),
        modality=pl.lit(scan.modality),
        image_id=pl.lit(scan.image_id),
        plane=pl.lit(cuts.plane),
        patient_id=pl.lit(scan.patient_id),
        institute=pl.lit(scan.institute),
        sex=pl.lit(scan.sex),
        age=pl.lit(scan.age),
        study_type=pl.lit(scan.study_type),
        **{key: pl.lit(value, pl.String) for key, value in scan.meta.items()},
    )
    others = [name for name in frame.columns if name not in SCHEMA]
    return frame.select(*(pl.col(name).cast(kind) for name, kind in SCHEMA.items()), *others)
