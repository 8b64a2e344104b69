"""Rule write_imaging_summary: all tables of the imaging study -> the answers in words."""

from entry import job

with job(snakemake):
    import json
    from pathlib import Path

    import polars as pl

    from medsae.imaging.artifacts import read_slices
    from medsae.io import atomic_path
    from medsae.report.document import to_html, to_markdown, to_rst
    from medsae.report.imaging.data import RANKING_NUMBERS, read_probes, read_recovery, read_table
    from medsae.report.imaging.run import ImagingRun
    from medsae.report.imaging.summary import front_page, write_imaging_summary

    source, params = snakemake.input, snakemake.params

    def load(path):
        return json.loads(Path(path).read_text(encoding="utf-8"))

    chosen = load(source.chosen)

    def of_each(paths, read):
        return dict(zip(chosen, map(read, paths), strict=True))

    measures = ("k", "mean", "p_at_10", "prevalence")
    run = ImagingRun(
        name=params.name,
        slices=read_slices(source.slices),
        quarantine=pl.read_csv(source.quarantine, infer_schema=False),
        ranking=read_table(source.ranking, RANKING_NUMBERS),
        chosen=chosen,
        probes=read_probes(source.probes),
        recovery=read_recovery(source.recovery),
        fingerprints=of_each(source.fingerprints, lambda path: read_table(path, measures)),
        languages=of_each(source.languages, lambda path: read_table(path, measures)),
        metrics=of_each(source.metrics, load),
        evaluation=params.evaluation,
        judged_on=params.judged_on,
    )
    document = write_imaging_summary(run)
    for path, text in (
        (snakemake.output.markdown, to_markdown(document)),
        (snakemake.output.page, to_html(document)),
        (snakemake.output.headline, to_rst(front_page(run))),
    ):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
