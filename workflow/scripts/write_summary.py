"""Rule write_summary: all tables of the run -> the answers in words."""

from entry import job

with job(snakemake):
    import json
    from pathlib import Path

    from medsae.io import atomic_path
    from medsae.report.document import to_html, to_markdown, to_rst
    from medsae.report.findings import Run
    from medsae.report.summary import front_page, write_summary
    from medsae.report.tables import read, read_all

    def load(path):
        return json.loads(Path(path).read_text(encoding="utf-8"))

    source, params, output = snakemake.input, snakemake.params, snakemake.output
    run = Run(
        corpus=params.corpus,
        random_models=frozenset(params.random_models),
        ner_name=params.ner_name,
        synthetic=params.synthetic,
        sense_source=params.sense_source,
        summaries=[load(path) for path in source.summaries],
        jaccard=read_all(source.jaccard),
        notes=load(source.notes),
        agreement=read(source.agreement),
        contrasts=read(source.contrasts),
        fits=read(source.fits),
        gains=read_all(source.gains) if source.gains else None,
        ner=read(source.ner) if source.ner else None,
    )
    document = write_summary(run)
    for path, text in (
        (output.markdown, to_markdown(document)),
        (output.page, to_html(document)),
        (output.headline, to_rst(front_page(run))),
    ):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
