# What the features of image SAEs stand for: probes, monosemanticity, recovery, ranking, retrieval.


rule probe_embeddings:
    input:
        status=batches(rules.embed_slices.output.status),
        slices=rules.join_slices.output.slices,
        scans=rules.join_slices.output.scans,
    output:
        probes=L.encoder("linear_probes.csv"),
    log:
        L.image_log("probe_embeddings", "encoder"),
    benchmark:
        L.image_benchmark("probe_embeddings", "encoder")
    conda:
        "../envs/torch.yaml"
    threads: HALF
    resources:
        mem_mb=R.table_memory_mb,
    params:
        embeddings=embeddings_of,
        control=lambda wildcards: control(wildcards.encoder),
        n_bootstrap=EVALUATION.n_bootstrap,
        seed=C.seed,
    message:
        "Linear probes on {wildcards.encoder}"
    script:
        "../workflow/scripts/probe_embeddings.py"


rule score_image_features:
    input:
        features=rules.encode_features.output.features,
        slices=rules.join_slices.output.slices,
        scans=rules.join_slices.output.scans,
        config=rules.train_image_sae.output.config,
    output:
        scores=L.image_sae("feature_scores.csv"),
    log:
        L.image_log("score_image_features", "encoder", "sae"),
    benchmark:
        L.image_benchmark("score_image_features", "encoder", "sae")
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=R.table_memory_mb,
    params:
        splits=EVALUATION.scored_on,
        seed=C.seed,
    message:
        "Monosemanticity of {wildcards.sae} on {wildcards.encoder}"
    script:
        "../workflow/scripts/score_image_features.py"


rule recover_performance:
    input:
        features=rules.encode_features.output.features,
        slices=rules.join_slices.output.slices,
        scans=rules.join_slices.output.scans,
        config=rules.train_image_sae.output.config,
        probes=rules.probe_embeddings.output.probes,
    output:
        recovery=L.image_sae("recovery.csv"),
        probes=L.image_sae("linear_probes.csv"),
    log:
        L.image_log("recover_performance", "encoder", "sae"),
    benchmark:
        L.image_benchmark("recover_performance", "encoder", "sae")
    conda:
        "../envs/torch.yaml"
    threads: HALF
    resources:
        mem_mb=R.table_memory_mb,
    params:
        control=lambda wildcards: control(wildcards.encoder),
        n_bootstrap=EVALUATION.n_bootstrap,
        seed=C.seed,
    message:
        "Performance recovered by few features ({wildcards.encoder}, {wildcards.sae})"
    script:
        "../workflow/scripts/recover_performance.py"


checkpoint rank_configurations:
    input:
        scores=every_image_sae(rules.score_image_features.output.scores),
        recovery=every_image_sae(rules.recover_performance.output.recovery),
        configs=every_image_sae(rules.train_image_sae.output.config),
        quality=every_image_sae(rules.encode_features.output.quality),
    output:
        ranking=L.image("config_ranking.csv"),
        chosen=L.image("chosen_configurations.json"),
    log:
        L.image_log("rank_configurations"),
    benchmark:
        L.image_benchmark("rank_configurations")
    conda:
        "../envs/torch.yaml"
    params:
        configurations=[
            {"base_model": encoder, "sae_config": sae} | control(encoder)
            for encoder in ENCODERS
            for sae in IMAGE_SAES
        ],
    message:
        "Ranking the SAEs of each encoder"
    script:
        "../workflow/scripts/rank_configurations.py"


rule retrieve_fingerprints:
    input:
        status=batches(rules.embed_slices.output.status),
        features=rules.encode_features.output.features,
        slices=rules.join_slices.output.slices,
        scans=rules.join_slices.output.scans,
        config=rules.train_image_sae.output.config,
    output:
        results=L.image_sae("fingerprint.csv"),
        summary=L.image_sae("fingerprint_summary.csv"),
    log:
        L.image_log("retrieve_fingerprints", "encoder", "sae"),
    benchmark:
        L.image_benchmark("retrieve_fingerprints", "encoder", "sae")
    conda:
        "../envs/torch.yaml"
    threads: HALF
    resources:
        mem_mb=R.table_memory_mb,
    params:
        embeddings=embeddings_of,
        splits=EVALUATION.fingerprints_on,
        n_queries=EVALUATION.fingerprint_queries,
        n_bootstrap=EVALUATION.n_bootstrap,
        seed=C.seed,
    message:
        "Retrieving slices by fingerprint ({wildcards.encoder}, {wildcards.sae})"
    script:
        "../workflow/scripts/retrieve_fingerprints.py"
