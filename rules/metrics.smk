# What the latents say about senses: each metric one rule, one script, one library module.


rule measure_jaccard:
    input:
        latents=rules.pool_occurrence_latents.output.latents,
    output:
        published=L.sae("metrics/jaccard_cross_sense.csv"),
        terms=L.sae("metrics/jaccard_at_k.csv"),
        pairs=L.sae("metrics/jaccard_pairs.parquet"),
    log:
        L.log("measure_jaccard", "model", "layer", "sae"),
    benchmark:
        L.benchmark("measure_jaccard", "model", "layer", "sae")
    conda:
        "../envs/notes.yaml"
    threads: HALF
    resources:
        mem_mb=R.table_memory_mb,
    params:
        k=C.polysemy.jaccard_k,
        statistics=statistics("min_occurrences", "n_permutations", "n_bootstrap"),
    message:
        "Overlap of latents within and across senses ({wildcards.model}, {wildcards.sae})"
    script:
        "../workflow/scripts/measure_jaccard.py"


rule measure_training_gain:
    input:
        trained=rules.pool_occurrence_latents.output.latents,
        untrained=untrained(rules.pool_occurrence_latents.output.latents),
    output:
        gain=L.sae("metrics/training_gain.csv"),
    log:
        L.log("measure_training_gain", "model", "layer", "sae"),
    benchmark:
        L.benchmark("measure_training_gain", "model", "layer", "sae")
    conda:
        "../envs/notes.yaml"
    threads: HALF
    resources:
        mem_mb=R.table_memory_mb,
    params:
        statistics=statistics("min_occurrences", "n_bootstrap"),
    message:
        "Overlap beyond random weights ({wildcards.model}, {wildcards.sae})"
    script:
        "../workflow/scripts/measure_training_gain.py"


rule compare_poolings:
    input:
        occurrences=rules.locate_occurrences.output.occurrences,
        topk=parts(rules.export_topk.output.topk),
    output:
        poolings=L.sae("metrics/pooling_sensitivity.csv"),
    log:
        L.log("compare_poolings", "model", "layer", "sae"),
    benchmark:
        L.benchmark("compare_poolings", "model", "layer", "sae")
    conda:
        "../envs/notes.yaml"
    resources:
        mem_mb=R.table_memory_mb,
    params:
        pooling=C.polysemy.pooling,
        k=lambda wildcards: SAES[wildcards.sae].k,
        depth=min(C.polysemy.jaccard_k),
        statistics=statistics("min_occurrences", "n_bootstrap"),
    message:
        "Overlap of latents under each pooling of a term's tokens ({wildcards.model}, {wildcards.sae})"
    script:
        "../workflow/scripts/compare_poolings.py"


rule measure_entropy:
    input:
        latents=rules.pool_occurrence_latents.output.latents,
        calibration=rules.calibrate_sae.output.calibration,
    output:
        entropy=L.sae("metrics/entropy_per_sense.csv"),
    log:
        L.log("measure_entropy", "model", "layer", "sae"),
    benchmark:
        L.benchmark("measure_entropy", "model", "layer", "sae")
    conda:
        "../envs/notes.yaml"
    resources:
        mem_mb=R.table_memory_mb,
    params:
        statistics=statistics("min_occurrences"),
    message:
        "Entropy of the latents of each sense ({wildcards.model}, {wildcards.sae})"
    script:
        "../workflow/scripts/measure_entropy.py"


rule find_sense_linked_latents:
    input:
        latents=rules.pool_occurrence_latents.output.latents,
    output:
        linked=L.sae("metrics/sense_linked_latents.csv"),
    log:
        L.log("find_sense_linked_latents", "model", "layer", "sae"),
    benchmark:
        L.benchmark("find_sense_linked_latents", "model", "layer", "sae")
    conda:
        "../envs/notes.yaml"
    threads: HALF
    resources:
        mem_mb=R.table_memory_mb,
    params:
        statistics=statistics("min_occurrences", "n_permutations"),
    message:
        "Latents linked to one sense ({wildcards.model}, {wildcards.sae})"
    script:
        "../workflow/scripts/find_sense_linked_latents.py"


rule probe_latents:
    input:
        latents=rules.pool_occurrence_latents.output.latents,
        linked=rules.find_sense_linked_latents.output.linked,
    output:
        single=L.sae("viewer/probes/single_latent_probes.csv"),
        senses=L.sae("metrics/sense_probes.csv"),
    log:
        L.log("probe_latents", "model", "layer", "sae"),
    benchmark:
        L.benchmark("probe_latents", "model", "layer", "sae")
    conda:
        "../envs/notes.yaml"
    threads: HALF
    resources:
        mem_mb=R.table_memory_mb,
    params:
        statistics=statistics("min_occurrences", "n_permutations"),
    message:
        "Probing senses from latents ({wildcards.model}, {wildcards.sae})"
    script:
        "../workflow/scripts/probe_latents.py"


rule measure_retrieval:
    input:
        activations=rules.describe_activations.output.metadata,
        latents=rules.pool_occurrence_latents.output.latents,
        notes=rules.prepare_notes.output.notes,
    output:
        detail=L.sae("metrics/retrieval/exp_a_k_sweep_detail.csv"),
        summary=L.sae("metrics/retrieval/exp_a_k_sweep_summary.csv"),
        baselines=L.sae("metrics/retrieval/baselines.csv"),
    log:
        L.log("measure_retrieval", "model", "layer", "sae"),
    benchmark:
        L.benchmark("measure_retrieval", "model", "layer", "sae")
    conda:
        "../envs/torch.yaml"
    threads: HALF
    resources:
        mem_mb=R.table_memory_mb,
    params:
        retrieval=C.polysemy.retrieval.model_dump(),
        statistics=statistics("min_occurrences"),
    message:
        "Sense-aware retrieval ({wildcards.model}, {wildcards.sae})"
    script:
        "../workflow/scripts/measure_retrieval.py"


rule measure_faithfulness:
    input:
        unpack(language_model),
        tokens=rules.tokenize_notes.output.tokens,
        sae=rules.calibrate_sae.output.sae,
        config=rules.calibrate_sae.output.config,
        calibration=rules.calibrate_sae.output.calibration,
    output:
        faithfulness=L.sae("metrics/faithfulness.csv"),
    log:
        L.log("measure_faithfulness", "model", "layer", "sae"),
    benchmark:
        L.benchmark("measure_faithfulness", "model", "layer", "sae")
    conda:
        "../envs/torch.yaml"
    threads: HALF
    resources:
        mem_mb=R.extraction_memory_mb,
        runtime=R.ablation_runtime_min,
        gpu=gpus(MODELS, "model"),
    params:
        source=language_model_source,
        layer=lambda wildcards: int(wildcards.layer),
        extraction=extraction_settings,
        ablation=C.polysemy.ablation.model_dump(),
        statistics=statistics("n_bootstrap"),
        random_weights=lambda wildcards: MODELS[wildcards.model].random_weights,
    message:
        "Measuring what {wildcards.sae} loses of {wildcards.model}"
    script:
        "../workflow/scripts/measure_faithfulness.py"


rule ablate_latents:
    input:
        unpack(language_model),
        latents=rules.pool_occurrence_latents.output.latents,
        linked=rules.find_sense_linked_latents.output.linked,
        tokens=rules.tokenize_notes.output.tokens,
        sae=rules.calibrate_sae.output.sae,
        config=rules.calibrate_sae.output.config,
        calibration=rules.calibrate_sae.output.calibration,
    output:
        deltas=L.sae("metrics/ablation_delta_ce.csv"),
        summary=L.sae("metrics/ablation_summary.csv"),
    log:
        L.log("ablate_latents", "model", "layer", "sae"),
    benchmark:
        L.benchmark("ablate_latents", "model", "layer", "sae")
    conda:
        "../envs/torch.yaml"
    threads: HALF
    resources:
        mem_mb=R.extraction_memory_mb,
        runtime=R.ablation_runtime_min,
        gpu=gpus(MODELS, "model"),
    params:
        source=language_model_source,
        layer=lambda wildcards: int(wildcards.layer),
        extraction=extraction_settings,
        ablation=C.polysemy.ablation.model_dump(),
        statistics=statistics("n_permutations"),
        parts=lambda wildcards: L.sae("checkpoints/ablation").format(**wildcards),
    message:
        "Removing sense-linked latents from {wildcards.model} ({wildcards.sae})"
    script:
        "../workflow/scripts/ablate_latents.py"


rule build_viewer:
    input:
        topk=parts(rules.export_topk.output.topk),
        notes=rules.prepare_notes.output.notes,
        spans=rules.align_spans.output.table,
        calibration=rules.calibrate_sae.output.calibration,
        linked=rules.find_sense_linked_latents.output.linked,
        probes=rules.probe_latents.output.single,
    output:
        top_tokens=L.sae("viewer/top_tokens_per_latent.csv"),
        pack=L.sae("viewer/viewer_pack.json"),
    log:
        L.log("build_viewer", "model", "layer", "sae"),
    benchmark:
        L.benchmark("build_viewer", "model", "layer", "sae")
    conda:
        "../envs/notes.yaml"
    resources:
        mem_mb=R.table_memory_mb,
    message:
        "Gathering the top tokens of every latent ({wildcards.model}, {wildcards.sae})"
    script:
        "../workflow/scripts/build_viewer.py"
