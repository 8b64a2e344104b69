"""Rule retrieve_by_language: described features -> slices found by words."""

from entry import job

with job(snakemake):
    import polars as pl

    from medsae.imaging.evaluate import retrieve_by_language
    from medsae.imaging.interpret.run import picker_of
    from medsae.imaging.language_retrieval import language_summary
    from medsae.io import atomic_path

    source, params = snakemake.input, snakemake.params
    described = pl.read_csv(source.descriptions, infer_schema_length=None)
    table = retrieve_by_language(
        source.slices,
        source.features,
        source.config,
        described,
        picker_of(params.settings, described, source.slices, params.cache),
        params.splits,
        params.n_queries,
        params.seed,
    )
    with atomic_path(snakemake.output.results) as path:
        table.write_csv(path)
    with atomic_path(snakemake.output.summary) as path:
        language_summary(table, params.n_bootstrap, params.seed).write_csv(path)
