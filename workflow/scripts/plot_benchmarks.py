"""Rule plot_benchmarks: benchmark files -> table and figure."""

from entry import job

with job(snakemake):
    from medsae.report.benchmarks import draw_benchmarks, gather_benchmarks
    from medsae.report.style import save
    from medsae.report.tables import write

    table = gather_benchmarks(snakemake.params.folder)
    write(table, snakemake.output.table)
    save(draw_benchmarks(table), snakemake.output.figure)
