"""Rule compare_poolings: latents per token -> Δ of each term under each pooling."""

from entry import files_in, job

with job(snakemake):
    import polars as pl

    from medsae.io import atomic_path
    from medsae.polysemy.columns import POOLING
    from medsae.polysemy.pooling_sensitivity import compare_poolings

    names, params = snakemake.wildcards, snakemake.params
    compared = compare_poolings(
        pl.read_parquet(snakemake.input.occurrences),
        files_in(*snakemake.input.topk),
        params.pooling,
        params.k,
        params.depth,
        params.statistics,
    )
    compared = compared.with_columns(
        model=pl.lit(names.model), layer=pl.lit(int(names.layer)), sae=pl.lit(names.sae)
    )
    with atomic_path(snakemake.output.poolings) as path:
        compared.select(POOLING).write_csv(path)
