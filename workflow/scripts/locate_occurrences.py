"""Rule locate_occurrences: occurrences and tokens -> the rows of each occurrence."""

from entry import files_in, job

with job(snakemake):
    import polars as pl

    from medsae.activations.align import locate_occurrences
    from medsae.io import atomic_path

    occurrences = pl.read_parquet(snakemake.input.occurrences)
    located = locate_occurrences(occurrences, files_in(snakemake.input.tokens))
    with atomic_path(snakemake.output.occurrences) as path:
        located.write_parquet(path)
