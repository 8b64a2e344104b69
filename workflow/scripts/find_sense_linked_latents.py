"""Rule find_sense_linked_latents: latents of each occurrence -> latents linked to one sense."""

from entry import job

with job(snakemake):
    from medsae.io import atomic_path
    from medsae.polysemy.linked_latents import find_sense_linked_latents

    table = find_sense_linked_latents(snakemake.input.latents, snakemake.params.statistics)
    with atomic_path(snakemake.output.linked) as path:
        table.write_csv(path)
