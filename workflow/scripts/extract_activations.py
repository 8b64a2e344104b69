"""Rule extract_activations: tokens of one shard -> hidden states of one layer."""

from entry import job

with job(snakemake):
    from medsae.activations.extract import extract_activations
    from medsae.activations.language_model import load_block_reader, sink_token_id
    from medsae.activations.tokenize import load_tokenizer
    from medsae.config import parse_config

    settings = snakemake.params.extraction
    source, layer = snakemake.params.source, snakemake.params.layer
    model = parse_config(snakemake.config).model(snakemake.wildcards.model)
    tokenizer = load_tokenizer(source, settings["trust_remote_code"])
    reader = load_block_reader(
        source,
        layer,
        dtype=settings["dtype"],
        quantization=settings["quantization"],
        attention=settings["attention"],
        trust_remote_code=settings["trust_remote_code"],
    )
    extract_activations(
        f"{snakemake.input.tokens}/{snakemake.wildcards.shard}.parquet",
        snakemake.output.activations,
        reader,
        sink_token=sink_token_id(tokenizer, reader.decoder.config),
        ctx_len=settings["ctx_len"],
        stride=settings["stride"],
        tokens_per_batch=model.tokens_per_batch,
        store_dtype=settings["store_dtype"],
        metadata={
            "model": snakemake.wildcards.model,
            "layer": layer,
            "shard": snakemake.wildcards.shard,
        },
    )
