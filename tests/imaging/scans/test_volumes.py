"""Volumes come in one frame, whatever frame they were stored in; bad ones are named."""

import gzip
import locale

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from medsae.imaging.volumes import check_scan, read_volume
from medsae.io import UserError
from tests.imaging.scans.conftest import planted, save

AXES = ["RAS", "LPS", "LAS", "SRA", "PIR", "ARS"]


@pytest.mark.parametrize("axes", AXES)
def test_every_orientation_comes_back_as_the_same_ras_volume(tmp_path, axes):
    truth = planted()
    save(tmp_path / "v.nii.gz", truth.data, truth.affine, axes)
    volume = read_volume(tmp_path / "v.nii.gz")
    assert np.array_equal(volume.data, truth.data)
    assert volume.spacing == truth.spacing
    assert np.allclose(volume.affine, truth.affine)


@settings(max_examples=20, deadline=None)
@given(st.permutations("RAS"), st.tuples(*[st.booleans()] * 3))
def test_any_flip_and_swap_is_undone(tmp_path_factory, order, flipped):
    opposite = dict(zip("RAS", "LPI", strict=True))
    axes = "".join(opposite[a] if flip else a for a, flip in zip(order, flipped, strict=True))
    truth = planted()
    path = tmp_path_factory.mktemp("v") / "v.nii"
    save(path, truth.data, truth.affine, axes)
    assert np.array_equal(read_volume(path).data, truth.data)


def test_itk_formats_and_nifti_give_the_same_volume(tmp_path):
    truth = planted()
    save(tmp_path / "v.nii.gz", truth.data, truth.affine, "LPS")
    image = SimpleITK.ReadImage(str(tmp_path / "v.nii.gz"))
    SimpleITK.WriteImage(image, str(tmp_path / "v.nrrd"))
    volume = read_volume(tmp_path / "v.nrrd")
    assert np.array_equal(volume.data, truth.data)
    assert np.allclose(volume.affine, truth.affine, atol=1e-4)


def write_series(folder, data, spacing, skip=()):
    folder.mkdir()
    before = locale.setlocale(locale.LC_ALL)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number in range(data.shape[2]):
        if number in skip:
            continue
        image = SimpleITK.GetImageFromArray(data[:, :, number].T[None])
        image.SetSpacing(spacing)
        tags = {
            "0008|0060": "CT",
            "0020|000e": "1.2.826.0.1.3680043.2.1125.1",
            "0020|0032": f"0\\0\\{number * spacing[2]}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(number),
            "0028|1052": "-1000",
            "0028|1053": "1",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{number:03d}.dcm"))
        writer.Execute(image)
    # the writer sets it to "C", and text that other tests read afterwards would have to be ASCII
    locale.setlocale(locale.LC_ALL, before)


def test_a_dicom_series_is_read_in_order_and_in_hounsfield_units(tmp_path):
    data = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
    write_series(tmp_path / "series", data - 1000, (2.0, 2.0, 3.0))
    volume = read_volume(tmp_path / "series")
    # DICOM counts to the left and to the back, RAS to the right and to the front.
    assert np.array_equal(volume.data[::-1, ::-1], data - 1000)
    assert np.allclose(volume.spacing, (2.0, 2.0, 3.0))


def test_a_dicom_series_with_a_slice_missing_is_refused(tmp_path):
    data = np.zeros((6, 5, 6), np.int16)
    write_series(tmp_path / "series", data, (2.0, 2.0, 3.0), skip=(2,))
    with pytest.raises(UserError, match="missing or doubled"):
        read_volume(tmp_path / "series")


def test_an_empty_folder_is_no_series(tmp_path):
    with pytest.raises(UserError, match="no DICOM series"):
        read_volume(tmp_path)


def write(path, data, affine=None):
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4) if affine is None else affine), path)


def truncated(path):
    write(path, np.random.default_rng(0).normal(size=(20, 20, 20)))
    path.write_bytes(path.read_bytes()[:3000])


def not_gzip(path):
    path.write_bytes(b"no volume at all")


def with_nan(path):
    data = np.zeros((4, 4, 4))
    data[1, 2, 3] = np.nan
    write(path, data)


def with_header(offset, value):
    """A good volume whose header has ``value`` at ``offset``."""

    def make(path):
        write(path, np.zeros((4, 4, 4), np.int16))
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[offset : offset + len(value)] = value
        path.write_bytes(gzip.compress(bytes(content)))

    return make


BAD = {
    "data type": (with_header(70, b"\x0f\x27"), "truncated or not a NIfTI"),
    "unit": (with_header(123, b"\x05"), "no unit of length"),
    "truncated": (truncated, "truncated or not a NIfTI"),
    "not_gzip": (not_gzip, "truncated or not a NIfTI"),
    "nan": (with_nan, "1 voxels are NaN"),
    "4d": (lambda path: write(path, np.zeros((4, 4, 4, 2))), "4 dimensions"),
    "2d": (lambda path: write(path, np.zeros((4, 4))), "2 dimensions"),
    "metres": (
        lambda path: write(path, np.zeros((4, 4, 4)), np.diag([0.001] * 3 + [1])),
        "not in millimetres",
    ),
    "flat": (
        lambda path: path.write_bytes(gzip.compress(b"\0" * 400)),
        "truncated or not a NIfTI",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_volume_is_refused_by_name(tmp_path, name):
    make, reason = BAD[name]
    path = tmp_path / f"{name}.nii.gz"
    make(path)
    with pytest.raises(UserError, match=reason) as refused:
        read_volume(path)
    assert str(path) in str(refused.value)


def test_a_missing_volume_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_volume(tmp_path / "gone.nii.gz")


def test_a_fourth_dimension_of_one_is_no_dimension(tmp_path):
    write(tmp_path / "v.nii", np.ones((3, 4, 5, 1), np.int16))
    assert read_volume(tmp_path / "v.nii").data.shape == (3, 4, 5)


def test_a_header_in_metres_is_read_in_millimetres(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.diag([0.002] * 3 + [1]))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "v.nii")
    assert np.allclose(read_volume(tmp_path / "v.nii").spacing, 2.0)


def test_a_ct_that_is_not_in_hounsfield_units_is_refused(tmp_path):
    write(tmp_path / "v.nii", np.arange(64, dtype=np.int16).reshape(4, 4, 4))
    volume = read_volume(tmp_path / "v.nii")
    with pytest.raises(UserError, match="not Hounsfield units"):
        check_scan("v.nii", volume, "ct")
    check_scan("v.nii", volume, "mr")


def test_an_even_volume_is_no_image(tmp_path):
    write(tmp_path / "v.nii", np.full((4, 4, 4), 7, np.int16))
    with pytest.raises(UserError, match="every voxel is 7"):
        check_scan("v.nii", read_volume(tmp_path / "v.nii"), "mr")
