"""Rule write_slice_metadata: the index of slices -> the published table, a column per structure."""

from entry import job

with job(snakemake):
    from medsae.imaging.metadata import write_metadata

    write_metadata(
        snakemake.input.slices,
        snakemake.input.scans,
        snakemake.output.metadata,
        snakemake.params.png,
    )
