"""Rule retrieve_fingerprints: features of one SAE -> slices found by their strongest features."""

from entry import job

with job(snakemake):
    from medsae.imaging.evaluate import retrieve_fingerprints
    from medsae.imaging.fingerprint import fingerprint_summary
    from medsae.io import atomic_path

    params = snakemake.params
    table = retrieve_fingerprints(
        snakemake.input.slices,
        snakemake.input.features,
        snakemake.input.config,
        params.embeddings,
        params.splits,
        params.n_queries,
        params.seed,
    )
    with atomic_path(snakemake.output.results) as path:
        table.write_csv(path)
    with atomic_path(snakemake.output.summary) as path:
        fingerprint_summary(table, params.n_bootstrap, params.seed).write_csv(path)
