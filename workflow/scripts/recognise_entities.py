"""Rule recognise_entities: the notes of one shard -> their entity spans."""

from entry import job

with job(snakemake):
    import torch
    from medsae.config import parse_config
    from medsae.ner import write_spans
    from medsae.ner.model import load_gliner
    from medsae.ner.recognise import recognise_entities
    from medsae.notes import scan_notes

    torch.set_num_threads(snakemake.threads)
    shard = scan_notes(snakemake.input.notes, snakemake.wildcards.shard)
    notes = shard.select("doc_id", "text").collect()
    ner = dict(snakemake.params.ner)
    spans = recognise_entities(
        notes.iter_rows(),
        load_gliner(ner.pop("source")),
        n_notes=notes.height,
        batch_size=parse_config(snakemake.config).ner.batch_size,
        **ner,
    )
    write_spans(snakemake.output.spans, spans)
