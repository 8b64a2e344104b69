"""Rule plot_training_gain: Δ with and without training -> figure."""

from entry import job

with job(snakemake):
    from medsae.report.style import save
    from medsae.report.tables import place, read
    from medsae.report.training_gain import draw_training_gain

    where = place(**snakemake.wildcards)
    save(draw_training_gain(read(snakemake.input.gain), where), snakemake.output.figure)
