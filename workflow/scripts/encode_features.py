"""Rule encode_features: embeddings, an SAE -> features of every slice, quality per split."""

from entry import job

with job(snakemake):
    import polars as pl

    from medsae.device import best_device
    from medsae.imaging.features import encode_features
    from medsae.imaging.quality import split_quality
    from medsae.io import atomic_path
    from medsae.sae import load_sae

    slices = pl.read_parquet(snakemake.input.slices, columns=["slice_key", "scan", "split"])
    sae = load_sae(snakemake.input.sae).to(best_device())
    encode_features(slices, snakemake.params.shards, sae, snakemake.output.features)
    quality = split_quality(slices, snakemake.params.shards, sae)
    with atomic_path(snakemake.output.quality) as path:
        quality.write_csv(path)
