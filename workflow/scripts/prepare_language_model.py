"""Rule prepare_language_model: packaged or random weights -> a folder that loads fast."""

from entry import job

with job(snakemake):
    from medsae.activations.prepare import prepare_language_model

    prepare_language_model(
        snakemake.params.source,
        snakemake.output.folder,
        random_weights=snakemake.params.random_weights,
        seed=snakemake.params.seed,
        trust_remote_code=snakemake.params.trust_remote_code,
    )
