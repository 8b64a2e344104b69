"""Rule prepare_image_encoder: packaged or random weights -> a folder that loads fast."""

from entry import job

with job(snakemake):
    from medsae.imaging.encoders.prepare import prepare_encoder

    prepare_encoder(
        snakemake.params.source,
        snakemake.output.folder,
        random_weights=snakemake.params.random_weights,
        seed=snakemake.params.seed,
    )
