"""Rule train_saes: activation shards -> several SAEs, from one pass over the data.

Their checkpoints are where train_sae looks for them, and are then found finished.
"""

from entry import job

with job(snakemake):
    from medsae.activations.describe import shards_of
    from medsae.config import Layout, parse_config, together
    from medsae.sae import SAEConfig, TrainConfig
    from medsae.sae.run import train_together

    configured, wildcards = parse_config(snakemake.config), snakemake.wildcards
    saes = configured.saes_of(configured.model(wildcards.model))
    saes = together.members(wildcards.group, saes, configured.seed)
    layout = Layout(configured)
    settings = [sae.defining() for sae in saes]
    trainings = [sae.pop("training") for sae in settings]  # all the same
    train_together(
        [SAEConfig(**sae) for sae in settings],
        TrainConfig(**trainings[0], **saes[0].training.runtime(), seed=configured.seed),
        shards_of(snakemake.input.activations, "train"),
        shards_of(snakemake.input.activations, "val"),
        [layout.checkpoints(sae).format(sae=sae.name, **wildcards) for sae in saes],
        saes[0].n_processes,
        snakemake.threads,
    )
