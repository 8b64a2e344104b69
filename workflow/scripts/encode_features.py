"""Rule encode_features: embeddings and an SAE -> the sparse features of every slice."""

from entry import job

with job(snakemake):
    import polars as pl

    from medsae.device import best_device
    from medsae.imaging.features import encode_features
    from medsae.sae import load_sae

    slices = pl.read_parquet(snakemake.input.slices, columns=["slice_key", "scan", "split"])
    sae = load_sae(snakemake.input.sae).to(best_device())
    encode_features(slices, snakemake.params.shards, sae, snakemake.output.features)
