"""Rule plot_corpus: occurrences -> counts per term and sense, and figure."""

from entry import job

with job(snakemake):
    import json
    from pathlib import Path

    import polars as pl
    from medsae.report.corpus import count_occurrences, draw_corpus
    from medsae.report.style import save
    from medsae.report.tables import write

    columns = ["doc_id", "patient_id", "lemma", "kind", "sense"]
    counts = count_occurrences(pl.read_parquet(snakemake.input.occurrences, columns=columns))
    summary = json.loads(Path(snakemake.input.notes).read_text(encoding="utf-8"))
    write(counts, snakemake.output.table)
    figure = draw_corpus(counts, summary, snakemake.params.min_occurrences)
    save(figure, snakemake.output.figure)
