"""The published table of slices: 1 shown, 0 absent, empty unknown."""

import polars as pl

from medsae.imaging.metadata import write_metadata

PUBLISHED = ("image_id", "slice_idx", "slice_orientation", "image_path")


def written(tmp_path, png):
    slices = pl.DataFrame(
        {
            "slice_key": [
                "ct/a/axial/0000",
                "ct/a/sagittal/0012",
                "ct/b/axial/0003",
                "mr/c/axial/1",
            ],
            "scan": ["ct-a", "ct-a", "ct-b", "mr-c"],
            "image_id": ["a", "a", "b", "c"],
            "plane": ["axial", "sagittal", "axial", "axial"],
            "slice_index": [0, 12, 3, 1],
            "kvp": ["120", "120", None, None],
            "organs": [["liver"], [], ["tumour"], None],
        }
    )
    slices.write_parquet(tmp_path / "slices.parquet")
    pl.DataFrame(
        {"scan": ["ct-a", "ct-b", "mr-c"], "structures": [["heart", "liver"], ["tumour"], None]}
    ).write_parquet(tmp_path / "scans.parquet")
    path = tmp_path / "metadata.csv"
    write_metadata(tmp_path / "slices.parquet", tmp_path / "scans.parquet", path, png)
    return pl.read_csv(path)


def test_what_masks_do_not_cover_is_empty_and_not_absent(tmp_path):
    table = written(tmp_path, png=False)
    assert tuple(table.columns[:4]) == PUBLISHED
    assert table["liver"].to_list() == [1, 0, None, None]
    assert table["heart"].to_list() == [0, 0, None, None]
    assert table["tumour"].to_list() == [None, None, 1, None]
    assert table["slice_orientation"].to_list() == ["z", "x", "z", "z"]
    assert table["kvp"].to_list() == [120, 120, None, None]


def test_images_are_found_by_their_path(tmp_path):
    arrays = written(tmp_path, png=False)["image_path"].to_list()
    assert arrays[:3] == [
        "slices/ct-a.safetensors#0", "slices/ct-a.safetensors#1", "slices/ct-b.safetensors#0",
    ]  # fmt: skip
    assert written(tmp_path, png=True)["image_path"][1] == "slices/png/ct-a/x_slice_0012.png"
