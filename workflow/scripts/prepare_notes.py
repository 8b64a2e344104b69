"""Rule prepare_notes: the notes file -> one checked, split and sharded table."""

from entry import job

with job(snakemake):
    from medsae.io import write_json
    from medsae.notes import NoteColumns, prepare_notes, write_notes

    settings = dict(snakemake.params.settings)
    columns = NoteColumns(**settings.pop("columns"))
    notes, summary = prepare_notes(columns=columns, **settings)
    write_notes(snakemake.output.notes, notes)
    write_json(snakemake.output.summary, summary.as_dict())
