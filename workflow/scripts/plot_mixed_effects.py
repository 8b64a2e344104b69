"""Rule plot_mixed_effects: planned contrasts -> figure."""

from entry import job

with job(snakemake):
    from medsae.report.mixed_effects import draw_mixed_effects
    from medsae.report.style import save
    from medsae.report.tables import read

    contrasts, fits = read(snakemake.input.contrasts), read(snakemake.input.fits)
    save(draw_mixed_effects(contrasts, fits), snakemake.output.figure)
