"""Rule plot_image_probes: probes and recovery of every encoder -> their figures and data."""

from entry import job

with job(snakemake):
    from medsae.report.imaging.data import read_probes, read_recovery
    from medsae.report.imaging.probes import draw_probes, task_means
    from medsae.report.imaging.recovery import draw_recovery, mean_curves
    from medsae.report.style import save
    from medsae.report.tables import write

    means = task_means(read_probes(snakemake.input.probes))
    write(means, snakemake.output.probes_data)
    save(draw_probes(means), snakemake.output.probes)
    curves = mean_curves(read_recovery(snakemake.input.recovery))
    write(curves, snakemake.output.recovery_data)
    save(draw_recovery(curves), snakemake.output.recovery)
