"""Rule tokenize_notes: the notes -> per shard their tokens with character offsets."""

from entry import job

with job(snakemake):
    from pathlib import Path

    from medsae.activations.tokenize import document_tokenizer, load_tokenizer, tokenize_notes

    params, folder = snakemake.params, Path(snakemake.output.tokens)
    tokenizer = document_tokenizer(load_tokenizer(params.source, params.trust_remote_code))
    for shard in params.shards:
        tokenize_notes(snakemake.input.notes, shard, tokenizer, folder / f"{shard}.parquet")
