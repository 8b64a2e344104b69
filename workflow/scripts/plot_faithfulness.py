"""Rule plot_faithfulness: faithfulness of every SAE -> one table and figure."""

from entry import job

with job(snakemake):
    from medsae.report.faithfulness import draw_faithfulness
    from medsae.report.style import save
    from medsae.report.tables import read_all, write

    scores = read_all(snakemake.input.scores)
    write(scores, snakemake.output.table)
    save(draw_faithfulness(scores), snakemake.output.figure)
