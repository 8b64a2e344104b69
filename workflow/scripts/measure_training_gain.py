"""Rule measure_training_gain: latents of each occurrence, and without training -> gain of Δ."""

from entry import job

with job(snakemake):
    from medsae.io import atomic_path
    from medsae.polysemy.training_gain import measure_training_gain

    source = snakemake.input
    gain = measure_training_gain(source.trained, source.untrained, snakemake.params.statistics)
    with atomic_path(snakemake.output.gain) as path:
        gain.write_csv(path)
