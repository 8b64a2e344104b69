"""Rule tokenize_notes: one shard of the notes -> its tokens with character offsets."""

from entry import job

with job(snakemake):
    from medsae.activations.tokenize import document_tokenizer, load_tokenizer, tokenize_notes

    tokenizer = load_tokenizer(snakemake.params.source, snakemake.params.trust_remote_code)
    tokenize_notes(
        snakemake.input.notes,
        snakemake.wildcards.shard,
        document_tokenizer(tokenizer),
        snakemake.output.tokens,
    )
