"""All scans together: what was sliced, what was refused, who is in which split."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from medsae.imaging.slicing import SCHEMA, SliceSettings, stored_facts, write_slices
from medsae.imaging.sources import Scan
from medsae.imaging.splits import assign_splits
from medsae.io import UserError, atomic_path, progress, write_json

STATUS: dict[str, Any] = {
    "scan": pl.String,
    "modality": pl.String,
    "image_id": pl.String,
    "patient_id": pl.String,
    "institute": pl.String,
    "sex": pl.String,
    "age": pl.Float32,
    "study_type": pl.String,
    "source": pl.String,
    "reason": pl.String,  # why it was refused; null when it was sliced
    "n_slices": pl.UInt32,
    "structures": pl.List(pl.String),  # that the masks could show; null without masks
    "spacing": pl.List(pl.Float32),  # mm: right, front, head
    "shape": pl.List(pl.UInt32),
    "shown": pl.List(pl.Float32),  # values shown black and white
}
KEYS = ("modality", "image_id", "patient_id", "institute", "sex", "age", "study_type")

logger = logging.getLogger("medsae")


def slice_scans(scans: Sequence[Scan], folder: str | Path, settings: SliceSettings) -> pl.DataFrame:
    """Slice ``scans`` into ``folder``; one row each: sliced, or refused for a reason."""
    rows = []
    for scan in progress(scans, "scans sliced"):
        row: dict[str, Any] = {"scan": scan.name, "source": scan.volume}
        row |= {key: getattr(scan, key) for key in KEYS}
        try:
            row["n_slices"] = write_slices(folder, scan, settings).height
            row |= stored_facts(Path(folder) / f"{scan.name}.parquet")
        except UserError as error:
            row["reason"] = str(error)
            logger.warning("%s is left out: %s", scan.name, error)
        rows.append({key: row.get(key) for key in STATUS})
    return pl.DataFrame(rows, schema=STATUS)


def join_catalog(
    parts: Sequence[str | Path],
    folder: str | Path,
    splitting: Mapping[str, Any],
    outputs: Mapping[str, str | Path],
) -> dict[str, Any]:
    """Join the rows of all scans and of all slices; returns and writes what was done.

    ``parts`` are tables of ``slice_scans``, ``folder`` holds ``{scan}.parquet``,
    ``splitting`` are the arguments of ``assign_splits``; ``outputs`` names the files slices,
    scans, quarantine, split_index and summary. Raises ``UserError`` if no scan was sliced.
    """
    scans = pl.concat([pl.read_parquet(part) for part in parts]).sort("scan")
    good = scans.filter(pl.col("reason").is_null())
    if not good.height:
        raise UserError(
            f"imaging: none of {scans.height} scans can be used; the first: {scans['reason'][0]}"
        )
    index, note = assign_splits(good, **splitting)
    n_slices = _write_slices(index, folder, outputs["slices"])
    joined = scans.join(index.select("scan", "split"), on="scan", how="left", maintain_order="left")
    bad = scans.filter(pl.col("reason").is_not_null())
    for name, frame in (("quarantine", bad.select("source", "reason")), ("split_index", index)):
        with atomic_path(outputs[name]) as temporary:
            columns = ["modality", "image_id", "split"] if name == "split_index" else frame.columns
            frame.select(columns).write_csv(temporary)
    with atomic_path(outputs["scans"]) as temporary:
        joined.write_parquet(temporary)
    summary = {
        "scans": scans.height,
        "quarantined": bad.height,
        "slices": n_slices,
        "scans_with_masks": good.filter(pl.col("structures").is_not_null()).height,
        "splits": note,
    }
    write_json(outputs["summary"], summary)
    logger.info("%s", json.dumps(summary))
    return summary


def _write_slices(index: pl.DataFrame, folder: str | Path, path: str | Path) -> dict[str, int]:
    """Stream the slices of all scans into one table; returns their number per split."""
    files = [Path(folder) / f"{scan}.parquet" for scan in index["scan"]]
    # Scans of several data sets know different things of their slices.
    others = sorted({name for file in files for name in pq.read_schema(file).names} - set(SCHEMA))
    counts = dict.fromkeys(("train", "val", "test"), 0)
    writer = None
    with atomic_path(path) as temporary:
        for file, split in progress(list(zip(files, index["split"], strict=True)), "slices joined"):
            rows = pl.read_parquet(file)
            lacking = [pl.lit(None, pl.String).alias(n) for n in others if n not in rows.columns]
            rows = rows.with_columns(*lacking, split=pl.lit(split))
            table = rows.select(*SCHEMA, "split", *others).to_arrow()
            writer = writer or pq.ParquetWriter(temporary, table.schema)
            writer.write_table(table.cast(writer.schema))
            counts[split] += rows.height
        assert writer is not None
        writer.close()
    return counts
