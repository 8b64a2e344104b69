"""Rule plot_ner: entity scores against gold -> figure."""

from entry import job

with job(snakemake):
    from medsae.report.ner import draw_ner
    from medsae.report.style import save
    from medsae.report.tables import read

    scores = read(snakemake.input.scores)
    save(draw_ner(scores, snakemake.params.ner_name), snakemake.output.figure)
