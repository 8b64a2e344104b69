# Occurrences of each term, their senses, and the latents that fire on them.


rule find_occurrences:
    input:
        notes=rules.prepare_notes.output.notes,
        lexicon=rules.prepare_lexicon.output.lexicon,
        spans=rules.merge_ner_spans.output.table,
        gold=(
            required(C.corpus.gold_senses, "corpus.gold_senses")
            if C.corpus.gold_senses
            else []
        ),
    output:
        occurrences=L.corpus("occurrences.parquet"),
        agreement=L.corpus("sense_agreement.csv"),
    log:
        L.log("find_occurrences"),
    benchmark:
        L.benchmark("find_occurrences")
    conda:
        "../envs/notes.yaml"
    resources:
        mem_mb=R.table_memory_mb,
    params:
        sense_source=C.polysemy.sense_source,
        n_bootstrap=C.polysemy.n_bootstrap,
        seed=C.seed,
    message:
        "Finding every occurrence of every term and resolving its sense"
    script:
        "../workflow/scripts/find_occurrences.py"


rule locate_occurrences:
    input:
        occurrences=rules.find_occurrences.output.occurrences,
        tokens=rules.tokenize_notes.output.tokens,
    output:
        occurrences=L.model("occurrence_tokens.parquet"),
    log:
        L.log("locate_occurrences", "model"),
    benchmark:
        L.benchmark("locate_occurrences", "model")
    conda:
        "../envs/notes.yaml"
    resources:
        mem_mb=R.table_memory_mb,
    message:
        "Locating the occurrences among the tokens of {wildcards.model}"
    script:
        "../workflow/scripts/locate_occurrences.py"


rule pool_occurrence_latents:
    input:
        occurrences=rules.locate_occurrences.output.occurrences,
        topk=parts(rules.export_topk.output.topk),
    output:
        latents=L.sae("occurrence_latents.parquet"),
    log:
        L.log("pool_occurrence_latents", "model", "layer", "sae"),
    benchmark:
        L.benchmark("pool_occurrence_latents", "model", "layer", "sae")
    conda:
        "../envs/notes.yaml"
    resources:
        mem_mb=R.table_memory_mb,
    params:
        pooling=C.polysemy.pooling,
        k=lambda wildcards: SAES[wildcards.sae].k,
    message:
        "Pooling the latents of every occurrence ({wildcards.model}, {wildcards.sae})"
    script:
        "../workflow/scripts/pool_occurrence_latents.py"


rule write_topk_csv:
    input:
        occurrences=rules.locate_occurrences.output.occurrences,
        topk=parts(rules.export_topk.output.topk),
        notes=rules.prepare_notes.output.notes,
    output:
        table=L.sae("topk_latents.csv"),
    log:
        L.log("write_topk_csv", "model", "layer", "sae"),
    benchmark:
        L.benchmark("write_topk_csv", "model", "layer", "sae")
    conda:
        "../envs/notes.yaml"
    resources:
        mem_mb=R.table_memory_mb,
    params:
        k=lambda wildcards: SAES[wildcards.sae].k,
    message:
        "Writing topk_latents.csv ({wildcards.model}, {wildcards.sae})"
    script:
        "../workflow/scripts/write_topk_csv.py"
