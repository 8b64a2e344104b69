"""Rule measure_entropy: latents of each occurrence -> entropy per sense."""

from entry import job

with job(snakemake):
    from medsae.io import atomic_path
    from medsae.polysemy.entropy import measure_entropy

    table = measure_entropy(
        snakemake.input.latents, snakemake.input.calibration, snakemake.params.statistics
    )
    with atomic_path(snakemake.output.entropy) as path:
        table.write_csv(path)
