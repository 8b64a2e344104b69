# Entity spans in the notes, with GLiNER.
NER_SOURCE = L.adapted_ner(C.ner.name) if C.ner.adapt else C.ner.source


if C.ner.adapt:

    rule adapt_ner:
        input:
            notes=required(C.ner.adapt.notes, "ner.adapt.notes"),
            spans=required(C.ner.adapt.spans, "ner.adapt.spans"),
        output:
            folder=directory(NER_SOURCE),
            losses=f"{NER_SOURCE}.losses.csv",
        log:
            L.log("adapt_ner"),
        benchmark:
            L.benchmark("adapt_ner")
        conda:
            "../envs/ner.yaml"
        threads: HALF
        resources:
            mem_mb=R.ner_memory_mb,
            gpu=C.ner.gpus,
        params:
            source=C.ner.source,
            labels=C.ner.labels,
            training=C.ner.adapt.model_dump(exclude={"notes", "spans"}),
            columns=C.corpus.model_dump(include={"doc_id_column", "text_column"}),
            seed=C.seed,
        message:
            "Fine-tuning GLiNER on annotated notes that the study never sees"
        script:
            "../workflow/scripts/adapt_ner.py"


rule recognise_entities:
    input:
        notes=rules.prepare_notes.output.notes,
        model=NER_SOURCE if C.ner.adapt else [],
    output:
        spans=L.corpus("ner/shards/{shard}.jsonl"),
    log:
        L.log("recognise_entities", "shard"),
    benchmark:
        L.benchmark("recognise_entities", "shard")
    conda:
        "../envs/ner.yaml"
    resources:
        mem_mb=R.ner_memory_mb,
        runtime=R.ner_runtime_min,
        gpu=C.ner.gpus,
    params:
        ner=recognition_settings(NER_SOURCE),
    message:
        "Finding entities in {wildcards.shard}"
    script:
        "../workflow/scripts/recognise_entities.py"


rule merge_ner_spans:
    input:
        spans=shards(rules.recognise_entities.output.spans),
    output:
        spans=L.corpus("ner/ner_spans.jsonl"),
        table=L.corpus("ner/ner_spans.parquet"),
    log:
        L.log("merge_ner_spans"),
    benchmark:
        L.benchmark("merge_ner_spans")
    conda:
        "../envs/notes.yaml"
    message:
        "Gathering the entity spans"
    script:
        "../workflow/scripts/merge_ner_spans.py"


if C.corpus.gold_spans:

    rule evaluate_ner:
        input:
            notes=rules.prepare_notes.output.notes,
            spans=rules.merge_ner_spans.output.table,
            gold=required(C.corpus.gold_spans, "corpus.gold_spans"),
        output:
            scores=L.corpus("ner/ner_evaluation.csv"),
        log:
            L.log("evaluate_ner"),
        benchmark:
            L.benchmark("evaluate_ner")
        conda:
            "../envs/notes.yaml"
        params:
            n_bootstrap=C.polysemy.n_bootstrap,
            seed=C.seed,
        message:
            "Comparing the entity spans with the gold spans"
        script:
            "../workflow/scripts/evaluate_ner.py"
