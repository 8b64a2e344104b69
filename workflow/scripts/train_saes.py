"""Rule train_saes: activation shards -> several SAEs, from one pass over the data.

Their checkpoints are where train_sae looks for them, and are then found finished.
"""

from entry import job

with job(snakemake):
    from pathlib import Path

    from medsae.config import parse_config
    from medsae.sae import SAEConfig, TrainConfig
    from medsae.sae.run import train_together

    params = snakemake.params
    settings = [dict(sae) for sae in params.saes]
    trainings = [sae.pop("training") for sae in settings]  # all the same
    configured = parse_config(snakemake.config).sae(params.names[0])
    train_together(
        [SAEConfig(**sae) for sae in settings],
        TrainConfig(**trainings[0], **configured.training.runtime(), seed=params.seed),
        [Path(path) for path in snakemake.input.train],
        [Path(path) for path in snakemake.input.val],
        params.checkpoints,
        configured.n_processes,
        snakemake.threads,
    )
