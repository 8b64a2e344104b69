# Tokens and hidden states of the notes; entity spans aligned to tokens.
#
# A job for each shard where loading a model or reading the notes takes long; one job for all
# shards where it does not, and its folder is then the output, one file per shard in it.


rule tokenize_notes:
    input:
        unpack(language_model),
        notes=rules.prepare_notes.output.notes,
    output:
        tokens=directory(L.model("tokens")),
    log:
        L.log("tokenize_notes", "model"),
    benchmark:
        L.benchmark("tokenize_notes", "model")
    conda:
        "../envs/torch.yaml"
    threads: HALF
    resources:
        mem_mb=R.table_memory_mb,
        runtime=R.tokenization_runtime_min,
    params:
        shards=L.shards,
        source=language_model_source,
        trust_remote_code=lambda wildcards: MODELS[wildcards.model].trust_remote_code,
    message:
        "Tokenizing the notes for {wildcards.model}"
    script:
        "../workflow/scripts/tokenize_notes.py"


rule extract_activations:
    input:
        unpack(language_model),
        tokens=rules.tokenize_notes.output.tokens,
    output:
        activations=L.layer("activations/{shard}.safetensors"),
    log:
        L.log("extract_activations", "model", "layer", "shard"),
    benchmark:
        L.benchmark("extract_activations", "model", "layer", "shard")
    conda:
        "../envs/torch.yaml"
    threads: HALF
    resources:
        mem_mb=R.extraction_memory_mb,
        runtime=R.extraction_runtime_min,
        gpu=gpus(MODELS, "model"),
    params:
        source=language_model_source,
        layer=lambda wildcards: int(wildcards.layer),
        extraction=extraction_settings,
    message:
        "Extracting layer {wildcards.layer} of {wildcards.model} on {wildcards.shard}"
    script:
        "../workflow/scripts/extract_activations.py"


# What reads all shards of a layer takes this file for them: one input in place of one per shard,
# which would make a plan of many SAEs slow to make and long to read.
rule describe_activations:
    input:
        tokens=rules.tokenize_notes.output.tokens,
        activations=shards(rules.extract_activations.output.activations),
    output:
        metadata=L.layer("activations/metadata.json"),
    log:
        L.log("describe_activations", "model", "layer"),
    benchmark:
        L.benchmark("describe_activations", "model", "layer")
    conda:
        "../envs/torch.yaml"
    params:
        model=description_settings,
        corpus=C.corpus.model_dump(include={"name", "val_fraction", "max_rows"}),
        seed=C.seed,
    message:
        "Describing the activations of layer {wildcards.layer} of {wildcards.model}"
    script:
        "../workflow/scripts/describe_activations.py"


rule align_spans:
    input:
        spans=shards(rules.recognise_entities.output.spans),
        tokens=rules.tokenize_notes.output.tokens,
    output:
        spans=L.model("ner_spans_with_tokens.jsonl"),
        table=L.model("ner_spans_with_tokens.parquet"),
    log:
        L.log("align_spans", "model"),
    benchmark:
        L.benchmark("align_spans", "model")
    conda:
        "../envs/notes.yaml"
    resources:
        mem_mb=R.table_memory_mb,
    message:
        "Aligning the entity spans to the tokens of {wildcards.model}"
    script:
        "../workflow/scripts/align_spans.py"
