"""Rule evaluate_ner: entity spans against gold spans -> precision, recall and F1."""

from entry import job

with job(snakemake):
    import polars as pl
    from medsae.io import atomic_path
    from medsae.ner import evaluate_spans, read_spans
    from medsae.notes import scan_notes

    scores = evaluate_spans(
        pl.read_parquet(snakemake.input.spans),
        read_spans(snakemake.input.gold),
        scan_notes(snakemake.input.notes).select("doc_id").collect()["doc_id"].to_list(),
        snakemake.params.n_bootstrap,
        snakemake.params.seed,
    )
    with atomic_path(snakemake.output.scores) as path:
        scores.write_csv(path)
