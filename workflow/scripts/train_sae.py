"""Rule train_sae: activation shards -> an SAE, from its last checkpoint if there is one."""

from entry import job

with job(snakemake):
    from medsae.activations.describe import shards_of
    from medsae.config import parse_config
    from medsae.sae import SAEConfig, TrainConfig
    from medsae.sae.run import train_and_publish

    settings = dict(snakemake.params.sae)
    training = dict(settings.pop("training"))
    # How the work is done is no param: changing it trains nothing again.
    configured = parse_config(snakemake.config).sae(snakemake.wildcards.sae)
    training |= configured.training.runtime()
    train_and_publish(
        SAEConfig(**settings),
        TrainConfig(**training, seed=snakemake.params.seed),
        shards_of(snakemake.input.activations, "train"),
        shards_of(snakemake.input.activations, "val"),
        snakemake.params.checkpoints,
        snakemake.output,
        configured.n_processes,
        snakemake.threads,
    )
