"""Rule plot_image_quality: ranking of every SAE -> quality against recovery, and the ranking."""

from entry import job

with job(snakemake):
    from medsae.report.imaging.data import RANKING_NUMBERS, read_table
    from medsae.report.imaging.quality import draw_quality
    from medsae.report.imaging.ranking import draw_ranking
    from medsae.report.style import save

    ranking = read_table(snakemake.input.ranking, RANKING_NUMBERS)
    save(draw_quality(ranking), snakemake.output.quality)
    save(draw_ranking(ranking), snakemake.output.ranking)
