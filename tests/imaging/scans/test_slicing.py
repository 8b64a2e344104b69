"""Slices show what lies there, in a stated frame, and say which structures they cut."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open

from medsae.imaging.intensity import correct_bias, percentile_range, to_grey, window_of
from medsae.imaging.masks import read_labels
from medsae.imaging.slicing import slice_scan, write_slices
from medsae.imaging.volumes import Volume
from medsae.io import UserError
from tests.imaging.scans.conftest import (
    SHAPE,
    STRUCTURES,
    VALUES,
    planted,
    save,
    write_scan,
)

AXIS = {"sagittal": 0, "coronal": 1, "axial": 2}


def rows_of(sliced, plane):
    return sliced.rows.with_row_index("row").filter(plane=plane).sort("slice_index")


@pytest.mark.parametrize("axes", ["LPS", "PIR", "SLA"])
def test_a_reoriented_copy_gives_the_same_slices_and_flags(tmp_path, settings, axes):
    one = slice_scan(write_scan(tmp_path / "a", "s"), settings)
    other = slice_scan(write_scan(tmp_path / "b", "s", axes=axes), settings)
    assert np.array_equal(one.pixels, other.pixels)
    assert np.array_equal(one.overlay, other.overlay)
    assert one.rows.equals(other.rows)


def test_each_slice_names_the_structures_that_it_cuts(tmp_path, settings):
    sliced = slice_scan(write_scan(tmp_path, "s"), settings)
    assert sliced.facts["structures"] == sorted(STRUCTURES)
    for plane, axis in AXIS.items():
        rows = rows_of(sliced, plane)
        assert rows.height == SHAPE[axis]
        for name in ("liver", "heart"):
            shown = [name in organs for organs in rows["organs"]]
            box = STRUCTURES[name][axis]
            assert np.flatnonzero(shown).tolist() == list(range(box.start, box.stop))


def test_a_structure_outside_of_the_square_is_not_shown(tmp_path, settings):
    sliced = slice_scan(write_scan(tmp_path, "s"), settings)
    axial, sagittal = rows_of(sliced, "axial"), rows_of(sliced, "sagittal")
    # 96 mm from back to front, of which the axial square takes the middle 80
    assert not any("corner" in organs for organs in axial["organs"])
    # 96 mm high and deep: the sagittal square is whole
    assert sum("corner" in organs for organs in sagittal["organs"]) == 4


def test_every_key_is_its_own_across_planes_and_modalities(tmp_path, settings):
    ct = slice_scan(write_scan(tmp_path / "ct", "s0001"), settings)
    mr = slice_scan(write_scan(tmp_path / "mr", "s0001", modality="mr"), settings)
    keys = pl.concat([ct.rows, mr.rows])["slice_key"]
    assert keys.is_unique().all()
    assert "ct/s0001/axial/0003" in keys
    assert "mr/s0001/coronal/0011" in keys


def test_slices_lie_as_on_a_screen(tmp_path, settings):
    """Axial: the patient's right on the left, the front on top; the head on top otherwise."""
    truth = planted()
    data = np.full(SHAPE, -1000, np.int16)
    data[30:38, 20:28, 12:20] = 1000  # to the right
    data[16:24, 38:44, 12:20] = 500  # to the front
    save(tmp_path / "v.nii", data, truth.affine)
    scan = replace(write_scan(tmp_path, "s"), volume=str(tmp_path / "v.nii"), masks=None)
    sliced = slice_scan(scan, replace(settings, windows={"other": (0, 2000)}))
    axial = sliced.pixels[rows_of(sliced, "axial")["row"][15]]
    assert axial[12:20, :8].max() == 255  # right
    assert axial[12:20, 24:].max() == 0
    assert 150 < axial[:4, 12:20].max() < 255  # front
    sagittal = sliced.pixels[rows_of(sliced, "sagittal")["row"][20]]
    assert 150 < sagittal[:, :8].max() < 255  # the front is on the left
    assert sagittal[:, 16:].max() == 0


def test_the_overlay_lies_on_the_structure(tmp_path, settings):
    sliced = slice_scan(write_scan(tmp_path, "s"), settings)
    label = 1 + sliced.facts["structures"].index("heart")
    low, high = sliced.facts["shown"]
    grey = to_grey(np.array([VALUES["heart"]]), low, high)[0]
    inside = sliced.pixels[sliced.overlay == label]
    assert np.median(inside) == grey
    assert (sliced.overlay == label).sum() > 100


def test_another_spacing_shows_the_same_at_the_same_place(tmp_path, settings):
    truth = planted()
    fine = np.kron(truth.data, np.ones((1, 1, 2), np.int16))
    affine = truth.affine @ np.diag([1, 1, 0.5, 1])
    save(tmp_path / "fine.nii", fine, affine)
    scan = replace(write_scan(tmp_path, "s"), masks=None)
    coarse = slice_scan(scan, settings)
    fine = slice_scan(replace(scan, volume=str(tmp_path / "fine.nii")), settings)
    for plane in ("sagittal", "coronal"):
        one = coarse.pixels[rows_of(coarse, plane)["row"]]
        other = fine.pixels[rows_of(fine, plane)["row"]]
        # Lanczos on doubled voxels is no identity; edges may differ, the picture may not
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.98
    assert rows_of(fine, "axial").height == 2 * rows_of(coarse, "axial").height


def test_steps_are_in_millimetres_and_interpolated(tmp_path, settings):
    scan = replace(write_scan(tmp_path, "s"), masks=None)
    # A window that clips nothing: half-way is then half as grey.
    wide = replace(settings, windows={"other": (0, 4000)}, planes={"ct": ["axial"]})
    every = slice_scan(scan, replace(wide, step_mm=3.0))
    half = slice_scan(scan, replace(wide, step_mm=1.5))
    assert np.array_equal(half.pixels[::2], every.pixels)
    between = (every.pixels[:-1].astype(float) + every.pixels[1:]) / 2
    assert np.abs(half.pixels[1::2] - between).max() <= 1.5  # rounded before the resize


def test_trimming_leaves_the_slices_from_the_first_to_the_last_structure(tmp_path, settings):
    sliced = slice_scan(write_scan(tmp_path, "s"), replace(settings, trim=True))
    axial = rows_of(sliced, "axial")["slice_index"].to_list()
    assert axial == list(range(10, 30))


def test_thinning_keeps_the_first_and_the_last(tmp_path, settings):
    sliced = slice_scan(write_scan(tmp_path, "s"), replace(settings, max_per_plane=5))
    index = rows_of(sliced, "axial")["slice_index"].to_list()
    assert index == [0, 8, 16, 23, 31]


def test_thin_slabs_and_long_voxels_are_not_cut_across(tmp_path, settings):
    scan = write_scan(tmp_path, "s")
    planes = slice_scan(scan, replace(settings, min_side_mm=90)).rows["plane"].unique()
    assert planes.to_list() == ["sagittal"]  # 96 × 96 mm; the others are 80 mm wide
    planes = slice_scan(scan, replace(settings, max_anisotropy=1.2)).rows["plane"].unique()
    assert planes.to_list() == ["axial"]  # 2 × 2 mm; the others are 2 × 3
    with pytest.raises(UserError, match="no plane to cut"):
        slice_scan(scan, replace(settings, min_side_mm=200))


def test_acquisition_is_the_axis_of_fewest_voxels(tmp_path, settings):
    planes = {"ct": "acquisition"}
    sliced = slice_scan(write_scan(tmp_path, "s"), replace(settings, planes=planes))
    assert sliced.rows["plane"].unique().to_list() == ["axial"]


def test_windows_are_chosen_by_the_study_type():
    windows = {"thorax": (-200, 1400), "head": (40, 400), "other": (50, 1000)}
    assert window_of("CT Thorax-Abdomen", windows) == (-900, 500)
    assert window_of("ct head", windows) == (-160, 240)
    assert window_of(None, windows) == (-450, 550)
    assert window_of("ct leg", windows) == (-450, 550)


def test_the_window_maps_to_black_and_white():
    grey = to_grey(np.array([-2000, -900, -200, 500, 3000]), -900, 500)
    assert grey.tolist() == [0, 0, 128, 255, 255]


def test_mr_is_scaled_by_percentiles_of_its_positive_voxels():
    data = np.concatenate([np.zeros(1000), np.arange(1, 101)])
    assert percentile_range(data) == pytest.approx((1.99, 99.01))
    with pytest.raises(UserError, match="no contrast"):
        percentile_range(np.zeros(10))


def test_n4_evens_out_a_bias_field():
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (32, 32, 16)), indexing="ij")
    inside = x**2 + y**2 < 0.8
    truth = np.where(inside, 100.0 + 40 * (x**2 + y**2 < 0.2), 0.0)
    biased = Volume(truth * np.exp(0.5 * x + 0.3 * z), (2.0, 2.0, 2.0), np.eye(4))
    ring = inside & ~(x**2 + y**2 < 0.25)
    spread = biased.data[ring].std() / biased.data[ring].mean()
    corrected = correct_bias(biased).data[ring]
    assert corrected.std() / corrected.mean() < spread / 3


def test_a_map_of_labels_is_the_same_as_a_file_per_structure(tmp_path, settings):
    scan = write_scan(tmp_path, "s")
    truth = planted()
    labels = np.zeros(SHAPE, np.uint8)
    for value, name in enumerate(sorted(STRUCTURES), start=3):
        labels[truth.masks[name]] = value
    save(tmp_path / "labels.nii.gz", labels, truth.affine, "LPS")
    names = "".join(f"{v},{n}\n" for v, n in enumerate(sorted(STRUCTURES), start=3))
    (tmp_path / "names.csv").write_text("value,name\n" + names)
    joined = replace(
        scan, masks=str(tmp_path / "labels.nii.gz"), labels=str(tmp_path / "names.csv")
    )
    assert slice_scan(joined, settings).rows.equals(slice_scan(scan, settings).rows)


def test_a_mask_of_another_shape_or_place_is_refused(tmp_path, settings):
    scan = write_scan(tmp_path, "s")
    truth = planted()
    mask = tmp_path / "s/masks/liver.nii.gz"
    save(mask, truth.masks["liver"][:-1].astype(np.uint8), truth.affine)
    with pytest.raises(UserError, match=r"liver.nii.gz: the mask has \[39, 48, 32\] voxels"):
        slice_scan(scan, settings)
    moved = truth.affine.copy()
    moved[0, 3] += 10
    save(mask, truth.masks["liver"].astype(np.uint8), moved)
    with pytest.raises(UserError, match="does not lie where its scan lies"):
        slice_scan(scan, settings)


def test_a_label_without_a_name_is_refused(tmp_path, settings):
    scan = write_scan(tmp_path, "s")
    (tmp_path / "names.csv").write_text("value,name\n2,kidney\n")
    named = replace(scan, masks=f"{scan.masks}/liver.nii.gz", labels=str(tmp_path / "names.csv"))
    with pytest.raises(UserError, match="label 1, which has no name"):
        slice_scan(named, settings)
    (tmp_path / "names.csv").write_text("value;name\n2;kidney\n")
    with pytest.raises(UserError, match="columns value"):
        read_labels(tmp_path / "names.csv")


def test_a_scan_without_masks_has_no_flags_rather_than_empty_ones(tmp_path, settings):
    sliced = slice_scan(replace(write_scan(tmp_path, "s"), masks=None), settings)
    assert sliced.rows["organs"].null_count() == sliced.rows.height
    assert sliced.overlay is None


def test_slices_on_disk_are_made_once(tmp_path, settings):
    scan = write_scan(tmp_path, "s")
    folder = tmp_path / "slices"
    rows = write_slices(folder, scan, settings)
    first = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert write_slices(folder, scan, settings).equals(rows)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == first
    with safe_open(folder / "ct-s.safetensors", "np") as file:
        assert np.array_equal(file.get_tensor("pixels"), slice_scan(scan, settings).pixels)
        assert np.array_equal(file.get_tensor("mask"), slice_scan(scan, settings).overlay)
        names = json.loads(file.metadata()["organs"])
    assert names == {str(i): name for i, name in enumerate(sorted(STRUCTURES), start=1)}
    write_slices(folder, scan, replace(settings, pixels=16))
    with safe_open(folder / "ct-s.safetensors", "np") as file:
        assert file.get_slice("pixels").get_shape()[1:] == [16, 16]


def test_png_files_are_named_as_published(tmp_path, settings):
    write_slices(tmp_path / "slices", write_scan(tmp_path, "s"), replace(settings, png=True))
    names = {path.name for path in (tmp_path / "slices/png/ct-s").iterdir()}
    assert {"x_slice_0000.png", "y_slice_0047.png", "z_slice_0031.png"} <= names
    assert len(names) == sum(SHAPE)
