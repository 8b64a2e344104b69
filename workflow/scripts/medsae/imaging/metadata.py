"""``metadata.csv``: one row per slice with a column per structure, as published.

1 is shown, 0 is absent, empty is unknown: the masks of the slice's scan do not cover the
structure, or it has none.
"""

from pathlib import Path

import polars as pl

from medsae.imaging import columns as col
from medsae.imaging.columns import PLANES
from medsae.io import atomic_path, progress

ORIENTATION = dict(zip(PLANES, "xyz", strict=True))


def write_metadata(slices: str | Path, scans: str | Path, path: str | Path, png: bool) -> None:
    """Write the slices of ``slices.parquet`` to ``path``, scan by scan.

    ``scans``: ``scans.parquet``, which says what masks cover. ``image_path`` is relative to
    the study's folder: a PNG file where ``png``, else the array file and the row in it.
    """
    covered = pl.read_parquet(scans, columns=[col.SCAN, col.STRUCTURES]).drop_nulls()
    names = sorted(covered[col.STRUCTURES].explode().drop_nulls().unique().to_list())
    of_scan = dict(covered.iter_rows())
    lazy = pl.scan_parquet(slices)
    order = lazy.select(pl.col(col.SCAN).unique(maintain_order=True)).collect()[col.SCAN]
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        for number, scan in enumerate(progress(order.to_list(), "metadata: scans")):
            rows = lazy.filter(pl.col(col.SCAN) == scan).collect()
            table = _published(rows, names, set(of_scan.get(scan, ())), png)
            table.write_csv(handle, include_header=number == 0)


def _published(rows: pl.DataFrame, names: list[str], covered: set[str], png: bool) -> pl.DataFrame:
    orientation = pl.col(col.PLANE).replace_strict(ORIENTATION)
    number = pl.col(col.SLICE_INDEX)
    place = (
        pl.format("slices/png/{}/{}_slice_{}.png", col.SCAN, orientation,
                  number.cast(pl.String).str.zfill(4))
        if png
        else pl.format("slices/{}.safetensors#{}", col.SCAN, pl.int_range(pl.len()))
    )  # fmt: skip
    organs = [
        (
            pl.col(col.ORGANS).list.contains(name).cast(pl.Int8)
            if name in covered
            else pl.lit(None, pl.Int8)
        ).alias(name)
        for name in names
        if name not in rows.columns
    ]
    left_out = {col.ORGANS, col.PLANE, col.SLICE_INDEX, col.IMAGE_ID}
    others = [name for name in rows.columns if name not in left_out]
    return rows.select(
        col.IMAGE_ID,
        number.alias("slice_idx"),
        orientation.alias("slice_orientation"),
        place.alias("image_path"),
        *others,
        *organs,
    )
