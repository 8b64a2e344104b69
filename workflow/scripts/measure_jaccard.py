"""Rule measure_jaccard: latents of each occurrence -> overlap within and across senses."""

from entry import job

with job(snakemake):
    from medsae.io import atomic_path
    from medsae.polysemy.jaccard_tables import measure_jaccard

    terms, published, pairs = measure_jaccard(
        snakemake.input.latents, snakemake.params.k, snakemake.params.statistics
    )
    with atomic_path(snakemake.output.terms) as path:
        terms.write_csv(path)
    with atomic_path(snakemake.output.published) as path:
        published.write_csv(path)
    with atomic_path(snakemake.output.pairs) as path:
        pairs.write_parquet(path)
