"""Rule train_sae: activation shards -> an SAE, from its last checkpoint if there is one."""

from entry import job

with job(snakemake):
    import hashlib
    import shutil
    from pathlib import Path

    from medsae.device import best_device
    from medsae.io import atomic_path
    from medsae.sae import SAEConfig, TrainConfig, train_sae
    from medsae.store import open_shard

    settings = dict(snakemake.params.sae)
    training = TrainConfig(**settings.pop("training"), seed=snakemake.params.seed)
    train = [Path(path) for path in snakemake.input.train]
    val = [Path(path) for path in snakemake.input.val]

    # Checkpoints of other data are never continued.
    data = "".join(open_shard(path).fingerprint for path in (*train, *val))
    folder = Path(snakemake.params.checkpoints) / hashlib.sha256(data.encode()).hexdigest()[:12]

    result = train_sae(SAEConfig(**settings), training, train, val, folder, best_device())
    for path in snakemake.output:
        with atomic_path(path) as temporary:
            shutil.copyfile(result.folder / Path(path).name, temporary)
