"""Rule plot_probes: probe table -> figure."""

from entry import job

with job(snakemake):
    from medsae.report.probes import draw_probes
    from medsae.report.style import save
    from medsae.report.tables import place, read

    where = place(**snakemake.wildcards)
    save(draw_probes(read(snakemake.input.probes), where), snakemake.output.figure)
