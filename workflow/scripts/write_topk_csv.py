"""Rule write_topk_csv: latents per token -> the published table of term occurrences."""

from entry import files_in, job

with job(snakemake):
    import polars as pl

    from medsae.polysemy.topk import write_topk_csv

    write_topk_csv(
        pl.read_parquet(snakemake.input.occurrences),
        files_in(*snakemake.input.topk),
        snakemake.input.notes,
        snakemake.output.table,
        k=snakemake.params.k,
        model=snakemake.wildcards.model,
        layer=int(snakemake.wildcards.layer),
        sae=snakemake.wildcards.sae,
    )
