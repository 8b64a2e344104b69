"""Rule adapt_ner: annotated notes that the study never sees -> a GLiNER that knows their labels."""

from entry import job

with job(snakemake):
    from dataclasses import replace

    import torch
    from medsae.io import atomic_path
    from medsae.ner import read_spans
    from medsae.ner.adapt import Training, adapt_gliner
    from medsae.ner.annotations import AnnotatedNotes
    from medsae.ner.model import load_or_build_gliner, save_gliner
    from medsae.notes import NoteColumns, read_notes

    params = snakemake.params
    torch.set_num_threads(snakemake.threads)
    torch.manual_seed(params.seed)
    columns = NoteColumns(
        params.columns["text_column"], params.columns["doc_id_column"], patient_id=None
    )
    notes = read_notes(snakemake.input.notes, columns)
    spans = read_spans(snakemake.input.spans)
    model, has_new_head = load_or_build_gliner(params.source)
    training = Training(**params.training)
    if not has_new_head:
        training = replace(training, n_head_steps=0)
    labels = list(params.labels)
    annotated = AnnotatedNotes(
        notes,
        spans,
        labels,
        model.data_processor.words_splitter,
        model.config.max_width,
        snakemake.input.spans,
    )
    losses = adapt_gliner(model, annotated, labels, training, params.seed)
    save_gliner(model, snakemake.output.folder, params.source)
    with atomic_path(snakemake.output.losses) as path:
        losses.write_csv(path)
