"""Rule embed_slices: the slices of one batch of scans -> embeddings, scan by scan."""

from entry import job

with job(snakemake):
    from pathlib import Path

    import polars as pl

    from medsae.config import parse_config
    from medsae.device import best_device
    from medsae.imaging.embed import embed_scans, encoder_fingerprint
    from medsae.imaging.encoders import load_encoder
    from medsae.io import atomic_path

    settings = dict(snakemake.params.encoder)
    source = settings.pop("source")
    mark = encoder_fingerprint(source, settings)
    store_dtype, tokens = settings.pop("store_dtype"), settings.pop("tokens")
    scans = pl.read_parquet(snakemake.input.scans).filter(pl.col("reason").is_null())
    status = embed_scans(
        scans["scan"].to_list(),
        Path(snakemake.input.scans).parent,
        load_encoder(source, **settings, device=best_device()),
        mark,
        Path(snakemake.output.status).parent,
        snakemake.params.patches if tokens == "patch" else None,
        # How the work is done is no param: changing it embeds nothing again.
        parse_config(snakemake.config).encoder(snakemake.wildcards.encoder).batch_size,
        store_dtype,
    )
    with atomic_path(snakemake.output.status) as temporary:
        status.write_parquet(temporary)
