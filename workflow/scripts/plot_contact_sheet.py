"""Rule plot_contact_sheet: the best features of one SAE -> their slices, names and organs."""

from entry import job

with job(snakemake):
    import polars as pl

    from medsae.imaging.artifacts import SliceImages, read_slices
    from medsae.report.imaging.data import read_table
    from medsae.report.imaging.sheets import best_features, draw_contact_sheet
    from medsae.report.style import save
    from medsae.report.tables import write

    source = snakemake.input
    features = best_features(
        read_table(source.scores, ("monosemanticity_10",)),
        read_table(source.descriptions, ("rank",)),
        pl.read_csv(source.samples, infer_schema_length=None),
    )
    write(features, snakemake.output.table)
    slices = read_slices(source.slices)
    images = SliceImages(snakemake.params.images, slices)
    where = f"{snakemake.wildcards.encoder}, {snakemake.wildcards.sae}"
    save(draw_contact_sheet(features, images, slices, where), snakemake.output.figure)
