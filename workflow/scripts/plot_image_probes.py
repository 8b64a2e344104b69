"""Rule plot_image_probes: probes, recovery and ranking -> figures of all encoders, their data."""

from entry import job

with job(snakemake):
    from medsae.report.imaging.data import RANKING_NUMBERS, read_probes, read_recovery, read_table
    from medsae.report.imaging.probes import draw_probes, task_means
    from medsae.report.imaging.recovery import draw_recovery, mean_curves
    from medsae.report.style import save
    from medsae.report.tables import write

    means = task_means(read_probes(snakemake.input.probes))
    write(means, snakemake.output.probes_data)
    save(draw_probes(means), snakemake.output.probes)
    collapsed = read_table(snakemake.input.ranking, RANKING_NUMBERS).filter("collapsed")
    recovery = read_recovery(snakemake.input.recovery)
    usable = recovery.join(collapsed, on=["base_model", "sae_config"], how="anti")
    curves = mean_curves(usable)
    write(curves, snakemake.output.recovery_data)
    save(draw_recovery(curves), snakemake.output.recovery)
