"""Rule plan: the configuration and the length of the notes -> tokens, files, GPU-hours."""

from entry import job

with job(snakemake):
    from pathlib import Path

    from medsae.config import parse_config
    from medsae.config.plan import as_markdown, assumed_notes, make_plan
    from medsae.io import atomic_path, write_json
    from medsae.notes.survey import survey_notes

    config = parse_config(snakemake.params.config)
    notes, assumption = Path(config.corpus.notes), ""
    if notes.exists():
        n_notes, n_chars = survey_notes(notes, config.corpus.text_column)
    else:
        n_notes, n_chars, assumption = assumed_notes(config)
    plan = make_plan(config, n_notes, n_chars)
    page = as_markdown(plan, assumption)
    write_json(snakemake.params.table, plan.as_dict())
    with atomic_path(snakemake.params.page) as path:
        path.write_text(page, encoding="utf-8")
    print(page)
