"""Rule plot_jaccard: overlap table -> figure."""

from entry import job

with job(snakemake):
    from medsae.report.jaccard import draw_jaccard
    from medsae.report.style import save
    from medsae.report.tables import place, read

    where = place(**snakemake.wildcards)
    save(draw_jaccard(read(snakemake.input.terms), where), snakemake.output.figure)
