"""Rule make_demo_scans: packages -> scans with masks and a manifest."""

from entry import job

with job(snakemake):
    from medsae.imaging.demo_scans import make_demo_scans

    make_demo_scans(snakemake.input.packages, snakemake.output.scans)
