"""Rule plot_image_training: training metrics of an image SAE -> figure."""

from entry import job

with job(snakemake):
    from medsae.report.style import save
    from medsae.report.tables import read
    from medsae.report.training import draw_training

    where = f"{snakemake.wildcards.encoder}, {snakemake.wildcards.sae}"
    drawn = draw_training(read(snakemake.input.metrics), where, rows="slices", groups="scans")
    save(drawn, snakemake.output.figure)
