"""Rule plot_pooling: Δ under each pooling -> figure."""

from entry import job

with job(snakemake):
    from medsae.report.pooling import draw_pooling
    from medsae.report.style import save
    from medsae.report.tables import place, read

    where = place(**snakemake.wildcards)
    save(draw_pooling(read(snakemake.input.poolings), where), snakemake.output.figure)
