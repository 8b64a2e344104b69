# Features in words: named, tested on other slices, and used to find slices by words.


rule interpret_features:
    input:
        status=batches(rules.embed_slices.output.status),
        judge_status=judge_status,
        features=rules.encode_features.output.features,
        slices=rules.join_slices.output.slices,
        scans=rules.join_slices.output.scans,
        config=rules.train_image_sae.output.config,
        scores=rules.score_image_features.output.scores,
        recovery=rules.recover_performance.output.recovery,
    output:
        selected=L.image_sae("interpretation/selected_features.csv"),
        descriptions=L.image_sae("interpretation/feature_descriptions.csv"),
        samples=L.image_sae("interpretation/feature_sample_metadata.csv"),
        statistics=L.image_sae("interpretation/feature_activation_stats.csv"),
        cache=L.image_sae("interpretation/concept_cache.json"),
        metrics=L.image_sae("interpretation/evaluation_metrics.json"),
    log:
        L.image_log("interpret_features", "encoder", "sae"),
    benchmark:
        L.image_benchmark("interpret_features", "encoder", "sae")
    conda:
        "../envs/torch.yaml"
    threads: HALF
    resources:
        mem_mb=R.table_memory_mb,
        gpu=INTERPRETATION.gpus,
    params:
        settings=INTERPRETATION.model_dump(exclude={"gpus"}),
        embeddings=embeddings_of,
        images=lambda wildcards: L.image("slices"),
        judge_encoder=judge_encoder,
        judge_embeddings=lambda wildcards: L.encoder("embeddings").format(
            encoder=judge_encoder(wildcards)
        ),
        cache=answers,
        seed=C.seed,
    message:
        "Naming the features of {wildcards.sae} on {wildcards.encoder}"
    script:
        "../workflow/scripts/interpret_features.py"


rule retrieve_by_language:
    input:
        features=rules.encode_features.output.features,
        slices=rules.join_slices.output.slices,
        scans=rules.join_slices.output.scans,
        config=rules.train_image_sae.output.config,
        descriptions=rules.interpret_features.output.descriptions,
    output:
        results=L.image_sae("language_retrieval.csv"),
        summary=L.image_sae("language_retrieval_summary.csv"),
    log:
        L.image_log("retrieve_by_language", "encoder", "sae"),
    benchmark:
        L.image_benchmark("retrieve_by_language", "encoder", "sae")
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=R.table_memory_mb,
        gpu=INTERPRETATION.gpus,
    params:
        settings=INTERPRETATION.model_dump(include={"picker"}),
        cache=answers,
        splits=EVALUATION.language_on,
        n_queries=EVALUATION.language_queries,
        n_bootstrap=EVALUATION.n_bootstrap,
        seed=C.seed,
    message:
        "Finding slices by words ({wildcards.encoder}, {wildcards.sae})"
    script:
        "../workflow/scripts/retrieve_by_language.py"
