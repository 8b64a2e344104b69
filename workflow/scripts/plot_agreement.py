"""Rule plot_agreement: agreement on senses -> figure."""

from entry import job

with job(snakemake):
    from medsae.report.agreement import draw_agreement
    from medsae.report.style import save
    from medsae.report.tables import read

    save(draw_agreement(read(snakemake.input.agreement)), snakemake.output.figure)
