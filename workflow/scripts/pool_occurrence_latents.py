"""Rule pool_occurrence_latents: latents per token -> latents per occurrence of a term."""

from entry import files_in, job

with job(snakemake):
    import polars as pl

    from medsae.io import atomic_path
    from medsae.polysemy.pooling import pool_occurrences

    pooled = pool_occurrences(
        pl.read_parquet(snakemake.input.occurrences),
        files_in(*snakemake.input.topk),
        snakemake.params.pooling,
        snakemake.params.k,
    )
    names = snakemake.wildcards
    pooled = pooled.with_columns(
        model=pl.lit(names.model), layer=pl.lit(int(names.layer), pl.Int32), sae=pl.lit(names.sae)
    )
    with atomic_path(snakemake.output.latents) as path:
        pooled.write_parquet(path)
