"""Rule plot_image_retrieval: retrieval of one SAE -> curves, and examples with their slices."""

from entry import job

with job(snakemake):
    import polars as pl

    from medsae.imaging.artifacts import SliceImages, read_slices
    from medsae.report.imaging.data import read_table
    from medsae.report.imaging.retrieval import draw_fingerprint, draw_language
    from medsae.report.imaging.sheets import draw_fingerprint_examples, fingerprint_examples
    from medsae.report.style import save
    from medsae.report.tables import write

    source, output = snakemake.input, snakemake.output
    where = f"{snakemake.wildcards.encoder}, {snakemake.wildcards.sae}"
    numbers = ("k", "mean", "mean_low", "mean_high")
    save(draw_fingerprint(read_table(source.fingerprint, numbers), where), output.fingerprint)
    language = read_table(source.language, ("p_at_10", "p_at_10_low", "p_at_10_high"))
    save(draw_language(language, where), output.language)
    slices = read_slices(source.slices)
    results = pl.read_csv(source.results, infer_schema_length=None)
    found = results.with_columns(pl.col("results").fill_null(""))
    examples = fingerprint_examples(found, slices)
    write(examples, output.examples_data)
    images = SliceImages(snakemake.params.images, slices)
    save(draw_fingerprint_examples(examples, images, slices, where), output.examples)
