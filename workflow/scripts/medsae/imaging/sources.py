"""Which scans there are: a TotalSegmentator data set as downloaded, or a manifest.

TotalSegmentator (CT v2.0.1, MRI v2.0.0): ``s0000/ct.nii.gz`` or ``mri.nii.gz`` with
``segmentations/*.nii.gz`` beside it, and ``meta.csv``, separated by semicolons.

Manifest: a CSV with the columns image_id, modality (ct or mr), volume, and optionally masks
(a folder or file), labels (CSV: value, name), patient_id, institute, sex, age, study_type;
other columns are kept. Paths are relative to the manifest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import polars as pl

from medsae.imaging.columns import MODALITIES, OWN
from medsae.io import UserError

REQUIRED = ("image_id", "modality", "volume")
PATHS = ("volume", "masks", "labels")
FACTS = ("patient_id", "institute", "sex", "study_type")
TOTALSEGMENTATOR_VOLUME = {"ct": "ct.nii.gz", "mr": "mri.nii.gz"}
RENAMED = {"gender": "sex"}
SEXES = {"m": "m", "male": "m", "f": "f", "female": "f", "w": "f"}
MISSING = ("", "nan", "na", "n/a", "none", "null", "unknown")


@dataclass(frozen=True)
class Scan:
    """One scan and what is known of it; unknown is None."""

    modality: str
    image_id: str
    volume: str
    masks: str | None = None
    labels: str | None = None
    patient_id: str = ""
    institute: str | None = None
    sex: str | None = None  # m or f
    age: float | None = None  # years
    study_type: str | None = None
    meta: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Unique: CT and MR data sets number their scans alike."""
        return f"{self.modality}-{self.image_id}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(**values)


def find_scans(sources: Sequence[Mapping[str, str]]) -> list[Scan]:
    """The scans of all ``sources`` ({format, path, modality}), sorted by name.

    Files are not opened. Raises ``UserError`` naming source and row if a source is missing
    or malformed or if two scans have one name.
    """
    scans: list[Scan] = []
    for source in sources:
        if source["format"] == "totalsegmentator":
            scans += read_totalsegmentator(source["path"], source["modality"])
        else:
            scans += read_manifest(source["path"])
    seen: dict[str, Scan] = {}
    for scan in scans:
        if scan.name in seen:
            raise UserError(
                f"The scan {scan.name} is there twice: {seen[scan.name].volume} and "
                f"{scan.volume}; give each image its own image_id."
            )
        seen[scan.name] = scan
    return [seen[name] for name in sorted(seen)]


def read_manifest(path: str | Path) -> list[Scan]:
    """The scans of a manifest; raises ``UserError`` naming file and row."""
    path = Path(path)
    rows = _read_table(path, ",")
    scans = []
    for number, row in enumerate(rows, start=2):
        for column in REQUIRED:
            if row.get(column) is None:
                raise UserError(f"{path}: row {number} has no {column}.")
        modality = str(row["modality"]).lower().replace("mri", "mr")
        if modality not in MODALITIES:
            raise UserError(f"{path}: row {number}: modality must be ct or mr.")
        places = {key: str(path.parent / place) for key in PATHS if (place := row.get(key))}
        scans.append(_scan(path, number, modality, row, places))
    return scans


def read_totalsegmentator(folder: str | Path, modality: str) -> list[Scan]:
    """The scans of a TotalSegmentator data set, with or without its ``meta.csv``.

    Raises ``UserError`` if the folder holds no scan of the modality.
    """
    folder = Path(folder)
    file = TOTALSEGMENTATOR_VOLUME[modality]
    found = {path.parent.name: path for path in sorted(folder.glob(f"*/{file}"))}
    if not found:
        raise UserError(f"{folder}: holds no scan */{file}; give the unpacked data set's folder.")
    meta = folder / "meta.csv"
    rows = _read_table(meta, ";") if meta.exists() else []
    known = {row.get("image_id"): (number, row) for number, row in enumerate(rows, start=2)}
    scans = []
    for image_id, volume in found.items():
        number, row = known.get(image_id, (0, {}))
        places = {"volume": str(volume)}
        masks = volume.parent / "segmentations"
        if masks.is_dir():
            places["masks"] = str(masks)
        scans.append(_scan(meta, number, modality, {**row, "image_id": image_id}, places))
    return scans


def _scan(
    path: Path,
    number: int,
    modality: str,
    row: Mapping[str, str | None],
    places: Mapping[str, str],
) -> Scan:
    image_id = str(row["image_id"])
    if "/" in image_id or image_id.startswith("."):
        raise UserError(f"{path}: row {number}: image_id becomes a file name; leave out '/'.")
    facts = {key: row.get(key) for key in FACTS}
    sex = (facts["sex"] or "").lower()
    if sex and sex not in SEXES:
        raise UserError(f"{path}: row {number}: sex must be m, f or empty.")
    facts["sex"] = SEXES.get(sex)
    # Without patients each scan counts as its own, and the report says so.
    facts["patient_id"] = facts["patient_id"] or f"{modality}-{image_id}"
    used = {*REQUIRED, *PATHS, *FACTS, "age"}
    meta = {
        f"meta_{key}" if key in OWN else key: value for key, value in row.items() if key not in used
    }
    age = _age(path, number, row.get("age"))
    return Scan(modality, image_id, **places, **facts, age=age, meta=meta)  # type: ignore[arg-type]


def _age(path: Path, number: int, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{path}: row {number}: age must be a number of years.") from None


def _read_table(path: Path, separator: str) -> list[dict[str, str | None]]:
    try:
        frame = pl.read_csv(path, separator=separator, infer_schema=False, encoding="utf8")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{path}: cannot be read as a table ({type(error).__name__}).") from None
    frame = frame.rename({name: name.strip().lower() for name in frame.columns})
    frame = frame.rename(RENAMED, strict=False)
    if "image_id" not in frame.columns:
        raise UserError(f"{path}: has no column image_id.")
    text = pl.all().str.strip_chars()
    rows = frame.select(text).to_dicts()
    return [
        {
            key: None if value is None or value.lower() in MISSING else value
            for key, value in row.items()
        }
        for row in rows
    ]
