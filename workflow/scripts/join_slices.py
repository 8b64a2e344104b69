"""Rule join_slices: all batches -> one index of slices, with splits; refused scans by name."""

from entry import job

with job(snakemake):
    from pathlib import Path

    from medsae.imaging.catalog import join_catalog

    join_catalog(
        snakemake.input.scans,
        Path(snakemake.input.scans[0]).parent,
        dict(snakemake.params.splits) | {"seed": snakemake.params.seed},
        dict(snakemake.output.items()),
    )
