"""Rule train_image_sae: embeddings of the training scans -> a Matryoshka SAE."""

from entry import job

with job(snakemake):
    from pathlib import Path

    import polars as pl

    from medsae.config import parse_config
    from medsae.sae import SAEConfig, TrainConfig
    from medsae.sae.run import train_and_publish
    from medsae.store import open_shard

    scans = pl.read_parquet(snakemake.input.scans, columns=["scan", "split"])
    shards = {
        split: [
            Path(snakemake.params.shards) / f"{scan}.safetensors"
            for scan in scans.filter(split=split)["scan"]
        ]
        for split in ("train", "val")
    }
    settings = dict(snakemake.params.sae)
    training = dict(settings.pop("training"))
    if snakemake.params.epochs is not None:
        rows = sum(open_shard(path).n_rows for path in shards["train"])
        training["n_tokens"] = snakemake.params.epochs * rows
    # How the work is done is no param: changing it trains nothing again.
    configured = parse_config(snakemake.config).image_sae(snakemake.wildcards.sae)
    training |= configured.training.runtime()
    train_and_publish(
        SAEConfig(**settings),
        TrainConfig(**training, seed=snakemake.params.seed),
        shards["train"],
        shards["val"],
        snakemake.params.checkpoints,
        snakemake.output,
        configured.n_processes,
        snakemake.threads,
    )
