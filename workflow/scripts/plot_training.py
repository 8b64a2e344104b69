"""Rule plot_training: training metrics -> figure."""

from entry import job

with job(snakemake):
    from medsae.report.training import draw_training
    from medsae.report.style import save
    from medsae.report.tables import place, read

    where = place(**snakemake.wildcards)
    save(draw_training(read(snakemake.input.metrics), where), snakemake.output.figure)
