"""Rule find_scans: manifests and data sets -> the list of scans."""

from entry import job

with job(snakemake):
    from medsae.imaging.sources import find_scans
    from medsae.io import write_json

    scans = find_scans(snakemake.params.sources)
    write_json(snakemake.output.scans, [scan.to_dict() for scan in scans])
