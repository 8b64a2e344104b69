"""Rule plot_entropy: entropy table -> figure."""

from entry import job

with job(snakemake):
    from medsae.report.entropy import draw_entropy
    from medsae.report.style import save
    from medsae.report.tables import place, read

    where = place(**snakemake.wildcards)
    save(draw_entropy(read(snakemake.input.entropy), where), snakemake.output.figure)
