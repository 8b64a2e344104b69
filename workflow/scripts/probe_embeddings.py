"""Rule probe_embeddings: embeddings of one encoder -> what linear probes read off them."""

from entry import job

with job(snakemake):
    from medsae.imaging.evaluate import probe_embeddings
    from medsae.io import atomic_path

    table = probe_embeddings(
        snakemake.input.slices,
        snakemake.params.embeddings,
        {"encoder": snakemake.wildcards.encoder} | snakemake.params.control,
        snakemake.params.n_bootstrap,
        snakemake.params.seed,
    )
    with atomic_path(snakemake.output.probes) as path:
        table.write_csv(path)
