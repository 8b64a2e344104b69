"""Rule plot_ablation: ablation summary -> figure."""

from entry import job

with job(snakemake):
    from medsae.report.ablation import draw_ablation
    from medsae.report.style import save
    from medsae.report.tables import place, read

    where = place(**snakemake.wildcards)
    save(draw_ablation(read(snakemake.input.summary), where), snakemake.output.figure)
