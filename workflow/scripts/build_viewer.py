"""Rule build_viewer: top latents of all tokens -> top tokens of every latent, viewer pack."""

from entry import files_in, job

with job(snakemake):
    import polars as pl

    from medsae.io import atomic_path
    from medsae.polysemy.top_contexts import find_top_contexts
    from medsae.polysemy.viewer import read_latent_table, top_tokens, write_pack

    files, place = snakemake.input, snakemake.wildcards
    calibration = pl.read_parquet(files.calibration)
    found = find_top_contexts(files_in(*files.topk), files.spans, calibration.height)
    tokens = top_tokens(found, files.notes)
    with atomic_path(snakemake.output.top_tokens) as path:
        tokens.write_csv(path)
    write_pack(
        snakemake.output.pack,
        found,
        tokens,
        calibration,
        read_latent_table(files.linked),
        read_latent_table(files.probes),
        {"model": place.model, "layer": int(place.layer), "sae": place.sae},
    )
