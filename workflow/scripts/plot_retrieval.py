"""Rule plot_retrieval: k sweep and baselines -> figure."""

from entry import job

with job(snakemake):
    from medsae.report.retrieval import draw_retrieval
    from medsae.report.style import save
    from medsae.report.tables import place, read

    sweep, baselines = read(snakemake.input.sweep), read(snakemake.input.baselines)
    figure = draw_retrieval(sweep, baselines, place(**snakemake.wildcards))
    save(figure, snakemake.output.figure)
