"""Rule merge_ner_spans: the spans of all shards -> one JSONL and one table."""

from entry import job

with job(snakemake):
    from medsae.ner import merge_spans

    merge_spans(snakemake.input.spans, snakemake.output.spans, snakemake.output.table)
