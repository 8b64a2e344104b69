"""Rule plot_mixed_effects_diagnostics: residuals and random effects -> figure."""

from entry import job

with job(snakemake):
    from medsae.report.mixed_effects_diagnostics import draw_diagnostics
    from medsae.report.style import save
    from medsae.report.tables import read

    diagnostics, fits = read(snakemake.input.diagnostics), read(snakemake.input.fits)
    save(draw_diagnostics(diagnostics, fits), snakemake.output.figure)
