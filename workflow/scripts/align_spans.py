"""Rule align_spans: entity spans and tokens -> spans with token positions."""

from entry import files_in, job

with job(snakemake):
    from medsae.activations.align import align_spans

    align_spans(
        snakemake.input.spans,
        files_in(snakemake.input.tokens),
        snakemake.output.spans,
        snakemake.output.table,
    )
