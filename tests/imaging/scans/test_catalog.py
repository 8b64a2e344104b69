"""Bad scans are put aside by name and the rest goes on."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import polars as pl
import pytest

from medsae.imaging.catalog import join_catalog, slice_scans
from medsae.io import UserError
from tests.imaging.scans.conftest import planted, save, write_scan

SPLITTING = {"test_institutes": ["A"], "test_fraction": 0.2, "val_fraction": 0.2, "seed": 1}


def outputs(folder: Path) -> dict[str, Path]:
    names = {
        "slices": "slices.parquet",
        "scans": "scans.parquet",
        "quarantine": "quarantine.csv",
        "split_index": "totalseg_split_index.csv",
        "summary": "summary.json",
    }
    return {key: folder / name for key, name in names.items()}


def catalog(folder, scans, settings, n_batches=1):
    parts = []
    for number in range(n_batches):
        table = slice_scans(scans[number::n_batches], folder / "slices", settings)
        parts.append(folder / f"batch-{number}.parquet")
        table.write_parquet(parts[-1])
    files = outputs(folder)
    join_catalog(parts, folder / "slices", SPLITTING, files)
    return files


@pytest.fixture
def good(tmp_path):
    return [
        write_scan(
            tmp_path / "data", f"g{i}", institute="A" if i == 0 else "B", meta={"kvp": "120"}
        )
        for i in range(4)
    ]


def test_every_kind_of_bad_scan_is_named_and_the_rest_goes_on(tmp_path, settings, good):
    truth = planted()
    data = tmp_path / "data"
    bad = {name: write_scan(data, name) for name in ("truncated", "mask", "nan", "four", "units")}
    volume = Path(bad["truncated"].volume)
    volume.write_bytes(volume.read_bytes()[:2000])
    save(Path(bad["mask"].masks) / "liver.nii.gz", np.zeros((5, 5, 5), "u1"), truth.affine)
    broken = truth.data.astype(np.float32)
    broken[3, 3, 3] = np.nan
    save(Path(bad["nan"].volume), broken, truth.affine)
    four = nibabel.Nifti1Image(np.stack([truth.data] * 2, -1), truth.affine)
    nibabel.save(four, bad["four"].volume)
    save(Path(bad["units"].volume), (truth.data + 1000).astype(np.uint16), truth.affine)

    files = catalog(tmp_path, [*bad.values(), *good], settings)

    refused = pl.read_csv(files["quarantine"])
    reasons = dict(refused.iter_rows())
    expected = {
        "truncated": "truncated or not a NIfTI",
        "mask": "the mask has [5, 5, 5] voxels",
        "nan": "NaN or infinite",
        "four": "4 dimensions",
        "units": "not Hounsfield units",
    }
    assert {Path(source).parent.name for source in reasons} == set(expected)
    for source, reason in reasons.items():
        assert expected[Path(source).parent.name] in reason
    assert pl.read_parquet(files["slices"])["scan"].unique().sort().to_list() == [
        "ct-g0", "ct-g1", "ct-g2", "ct-g3",
    ]  # fmt: skip
    summary = json.loads(files["summary"].read_text(encoding="utf-8"))
    assert (summary["scans"], summary["quarantined"]) == (9, 5)


def test_all_bad_is_an_error_that_names_the_first(tmp_path, settings):
    scan = replace(write_scan(tmp_path, "gone"), volume=str(tmp_path / "nothing.nii"))
    with pytest.raises(UserError, match=r"none of 1 scans can be used.*nothing.nii"):
        catalog(tmp_path, [scan], settings)


def test_the_index_has_unique_keys_splits_and_meta_columns(tmp_path, settings, good):
    other = write_scan(tmp_path / "mr", "g0", modality="mr")
    files = catalog(tmp_path, [*good, other], settings)
    slices = pl.read_parquet(files["slices"])
    assert slices["slice_key"].is_unique().all()
    assert slices["scan"].to_list() == sorted(slices["scan"].to_list())
    assert slices.filter(image_id="g0", modality="ct")["split"].unique().to_list() == ["test"]
    assert set(slices["split"]) == {"train", "val", "test"}
    kvp = slices.group_by("modality").agg(pl.col("kvp").unique())
    assert dict(kvp.iter_rows()) == {"ct": ["120"], "mr": [None]}
    scans = pl.read_parquet(files["scans"])
    assert scans["structures"][0].to_list() == ["corner", "heart", "liver"]
    assert scans["n_slices"].sum() == slices.height
    index = pl.read_csv(files["split_index"])
    assert index.columns == ["modality", "image_id", "split"]
    assert index.height == 5


def test_the_number_of_batches_changes_nothing(tmp_path, settings, good):
    one = catalog(tmp_path / "1", good, settings)
    three = catalog(tmp_path / "3", good, settings, n_batches=3)
    for name in one:
        assert one[name].read_bytes() == three[name].read_bytes()


def test_a_scan_mended_after_a_run_is_sliced_and_the_others_are_kept(tmp_path, settings, good):
    volume = Path(good[1].volume)
    whole = volume.read_bytes()
    volume.write_bytes(gzip.compress(b"nothing"))
    catalog(tmp_path, good, settings)
    kept = (tmp_path / "slices/ct-g2.safetensors").stat().st_mtime_ns
    volume.write_bytes(whole)
    files = catalog(tmp_path, good, settings)
    assert pl.read_csv(files["quarantine"]).height == 0
    assert pl.read_parquet(files["scans"]).height == 4
    assert (tmp_path / "slices/ct-g2.safetensors").stat().st_mtime_ns == kept
