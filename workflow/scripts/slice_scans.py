"""Rule slice_scans: one batch of scans -> their slices, scan by scan; bad scans are named."""

from entry import job

with job(snakemake):
    import json
    from pathlib import Path

    from medsae.imaging.catalog import slice_scans
    from medsae.imaging.slicing import SliceSettings
    from medsae.imaging.sources import Scan
    from medsae.io import atomic_path

    listed = json.loads(Path(snakemake.input.scans).read_text(encoding="utf-8"))
    number = int(snakemake.wildcards.batch.removeprefix("batch-"))
    scans = [Scan.from_dict(scan) for scan in listed[number :: snakemake.params.n_batches]]
    settings = SliceSettings(**snakemake.params.slicing)
    table = slice_scans(scans, Path(snakemake.output.scans).parent, settings)
    with atomic_path(snakemake.output.scans) as temporary:
        table.write_parquet(temporary)
