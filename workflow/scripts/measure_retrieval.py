"""Rule measure_retrieval: latents of each occurrence -> sense-aware retrieval and baselines."""

from entry import job

with job(snakemake):
    from medsae.activations.describe import shards_of
    from medsae.io import atomic_path
    from medsae.polysemy.retrieval_tables import measure_retrieval

    detail, summary, baselines = measure_retrieval(
        snakemake.input.latents,
        snakemake.input.notes,
        shards_of(snakemake.input.activations),
        snakemake.params.retrieval,
        snakemake.params.statistics,
    )
    for table, output in (
        (detail, snakemake.output.detail),
        (summary, snakemake.output.summary),
        (baselines, snakemake.output.baselines),
    ):
        with atomic_path(output) as path:
            table.write_csv(path)
