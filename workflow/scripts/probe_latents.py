"""Rule probe_latents: latents of each occurrence -> how well senses can be read off them."""

from entry import job

with job(snakemake):
    from medsae.io import atomic_path
    from medsae.polysemy.probes import probe_latents

    single, senses = probe_latents(
        snakemake.input.latents, snakemake.input.linked, snakemake.params.statistics
    )
    with atomic_path(snakemake.output.single) as path:
        single.write_csv(path)
    with atomic_path(snakemake.output.senses) as path:
        senses.write_csv(path)
