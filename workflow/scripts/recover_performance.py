"""Rule recover_performance: features of one SAE -> what a few of them recover of the probes."""

from entry import job

with job(snakemake):
    from medsae.imaging.evaluate import recover_performance
    from medsae.io import atomic_path

    recovery, probes = recover_performance(
        snakemake.input.slices,
        snakemake.input.features,
        snakemake.input.config,
        snakemake.input.probes,
        {"encoder": snakemake.wildcards.encoder} | snakemake.params.control,
        snakemake.wildcards.sae,
        snakemake.params.n_bootstrap,
        snakemake.params.seed,
    )
    for table, target in (
        (recovery, snakemake.output.recovery),
        (probes, snakemake.output.probes),
    ):
        with atomic_path(target) as path:
            table.write_csv(path)
