"""Rule describe_activations: all shards of a layer -> metadata.json."""

from entry import files_in, job

with job(snakemake):
    from medsae.activations.describe import describe_activations
    from medsae.io import write_json

    model = dict(snakemake.params.model)
    about = {
        "model": model["name"],
        "source": model["source"],
        "random_weights": model["random_weights"],
        "layer": int(snakemake.wildcards.layer),
        "ctx_len": model["ctx_len"],
        "stride": model["stride"] or model["ctx_len"],
        "dtype": model["dtype"],
        "attention": model["attention"],
        "window_starts_with": "BOS, or end of text where the model has none; not stored",
        "seed": snakemake.params.seed,
        "corpus": dict(snakemake.params.corpus),
    }
    tokens = files_in(snakemake.input.tokens)
    metadata = describe_activations(tokens, snakemake.input.activations, about)
    write_json(snakemake.output.metadata, metadata)
