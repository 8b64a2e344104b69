"""Data sets are read as they were downloaded; what is wrong with them is said by name."""

import pytest

from medsae.imaging.sources import find_scans, read_manifest, read_totalsegmentator
from medsae.io import UserError
from tests.imaging.scans.conftest import planted, save


def totalsegmentator(folder, modality, ids, meta):
    truth = planted()
    for image_id in ids:
        name = "ct.nii.gz" if modality == "ct" else "mri.nii.gz"
        save(folder / image_id / name, truth.data[:4, :4, :4], truth.affine)
        save(
            folder / image_id / "segmentations/liver.nii.gz",
            truth.masks["liver"][:4, :4, :4].astype("u1"),
            truth.affine,
        )
    if meta:
        (folder / "meta.csv").write_text(meta)


META = """image_id;age;gender;institute;study_type;split;manufacturer;pathology
s0000;63.0;m;A;ct thorax;train;siemens;tumor
s0001;;f;B;ct abdomen-pelvis;test;;nan
s9999;50;m;C;ct head;train;;
"""


def test_a_totalsegmentator_data_set_is_read_as_downloaded(tmp_path):
    totalsegmentator(tmp_path, "ct", ["s0000", "s0001", "s0002"], META)
    first, second, third = read_totalsegmentator(tmp_path, "ct")
    assert (first.name, first.age, first.sex, first.institute) == ("ct-s0000", 63.0, "m", "A")
    assert first.meta == {"meta_split": "train", "manufacturer": "siemens", "pathology": "tumor"}
    assert first.volume.endswith("s0000/ct.nii.gz")
    assert first.masks.endswith("s0000/segmentations")
    assert (second.age, second.meta["pathology"]) == (None, None)
    assert (third.image_id, third.institute, third.patient_id) == ("s0002", None, "ct-s0002")


def test_without_its_table_a_data_set_still_has_scans(tmp_path):
    totalsegmentator(tmp_path, "mr", ["s0000"], None)
    (scan,) = read_totalsegmentator(tmp_path, "mr")
    assert (scan.name, scan.sex, scan.age) == ("mr-s0000", None, None)
    with pytest.raises(UserError, match=r"holds no scan \*/ct.nii.gz"):
        read_totalsegmentator(tmp_path, "ct")


def test_ct_and_mr_scans_of_one_number_are_two(tmp_path):
    totalsegmentator(tmp_path / "ct", "ct", ["s0000"], None)
    totalsegmentator(tmp_path / "mr", "mr", ["s0000"], None)
    sources = [
        {"format": "totalsegmentator", "path": str(tmp_path / kind), "modality": kind}
        for kind in ("mr", "ct")
    ]
    assert [scan.name for scan in find_scans(sources)] == ["ct-s0000", "mr-s0000"]
    with pytest.raises(UserError, match="ct-s0000 is there twice"):
        find_scans([*sources, sources[1]])


def test_a_manifest_has_paths_beside_it_and_keeps_its_other_columns(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(
        "Image_ID,modality,volume,masks,gender,age,scanner\n"
        "a,CT,a.nii.gz,masks/a,F,41,x\nb,MRI,b,,unknown,,\n"
    )
    a, b = read_manifest(path)
    assert a.volume == str(tmp_path / "a.nii.gz")
    assert (a.modality, a.sex, a.age, a.meta) == ("ct", "f", 41.0, {"scanner": "x"})
    assert (b.modality, b.masks, b.sex, b.age, b.meta) == (
        "mr",
        None,
        None,
        None,
        {"scanner": None},
    )


BAD = {
    "modality": ("image_id,modality,volume\na,xray,v.nii\n", "row 2: modality must be"),
    "no volume": ("image_id,modality,volume\na,ct,\n", "row 2 has no volume"),
    "no id": ("image_id,modality,volume\n,ct,v.nii\n", "row 2 has no image_id"),
    "slash": ("image_id,modality,volume\na/b,ct,v.nii\n", "leave out '/'"),
    "sex": ("image_id,modality,volume,sex\na,ct,v.nii,x\n", "sex must be"),
    "age": ("image_id,modality,volume,age\na,ct,v.nii,old\n", "age must be"),
    "separator": ("image_id;modality;volume\na;ct;v.nii\n", "no column image_id"),
    "empty": ("", "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_manifest_is_refused_with_its_row(tmp_path, name):
    text, reason = BAD[name]
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UserError, match=reason):
        read_manifest(tmp_path / "m.csv")
