# Notes in: made (demo only), checked, split by patient, cut into shards.


rule make_demo_notes:
    output:
        notes=L.demo("notes.csv"),
        spans=L.demo("gold_spans.jsonl"),
        senses=L.demo("gold_senses.csv"),
        training_notes=L.demo("ner_training_notes.csv"),
        training_spans=L.demo("ner_training_spans.jsonl"),
        training_senses=L.demo("ner_training_senses.csv"),
    log:
        L.log("make_demo_notes"),
    benchmark:
        L.benchmark("make_demo_notes")
    conda:
        "../envs/notes.yaml"
    params:
        n_notes=C.demo_corpus.n_notes,
        n_training_notes=C.demo_corpus.n_training_notes,
        seed=C.seed,
    message:
        "Writing {params.n_notes} synthetic clinical notes"
    script:
        "../workflow/scripts/make_demo_notes.py"


NOTES_KEYS = ("val_fraction", "shards", "val_shards", "max_rows", "drop_empty_text")
NOTES_SETTINGS = {key: getattr(C.corpus, key) for key in NOTES_KEYS} | {
    "path": C.corpus.notes,
    "seed": C.seed,
    "columns": {
        "text": C.corpus.text_column,
        "doc_id": C.corpus.doc_id_column,
        "patient_id": C.corpus.patient_id_column,
    },
}


rule prepare_notes:
    input:
        notes=notes_if_there(C.corpus.notes),
    output:
        notes=L.corpus("notes/notes.parquet"),
        summary=L.corpus("notes/summary.json"),
    log:
        L.log("prepare_notes"),
    benchmark:
        L.benchmark("prepare_notes")
    conda:
        "../envs/notes.yaml"
    resources:
        mem_mb=R.table_memory_mb,
    params:
        settings=NOTES_SETTINGS,
    message:
        "Checking the notes and splitting them by patient"
    script:
        "../workflow/scripts/prepare_notes.py"


rule prepare_lexicon:
    input:
        lexicon=required(C.polysemy.lexicon, "polysemy.lexicon"),
        controls=required(C.polysemy.controls, "polysemy.controls"),
        sense_labels=required(C.polysemy.sense_labels, "polysemy.sense_labels"),
    output:
        lexicon=L.corpus("polysemy_lexicon.csv"),
    log:
        L.log("prepare_lexicon"),
    benchmark:
        L.benchmark("prepare_lexicon")
    conda:
        "../envs/notes.yaml"
    params:
        ner_labels=C.ner.labels,
    message:
        "Checking the lexicon of ambiguous terms"
    script:
        "../workflow/scripts/prepare_lexicon.py"
