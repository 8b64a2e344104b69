# Sparse autoencoders: trained, calibrated, applied to every token.
rule train_sae:
    input:
        train=shards(rules.extract_activations.output.activations, L.train_shards),
        val=shards(rules.extract_activations.output.activations, L.val_shards),
    output:
        best=L.sae("sae/best.safetensors"),
        latest=L.sae("sae/latest.safetensors"),
        config=L.sae("sae/cfg.json"),
        best_meta=L.sae("sae/best_meta.json"),
        metrics=L.sae("sae/train_metrics.parquet"),
    log:
        L.log("train_sae", "model", "layer", "sae"),
    benchmark:
        L.benchmark("train_sae", "model", "layer", "sae")
    conda:
        "../envs/torch.yaml"
    threads: HALF
    resources:
        mem_mb=R.sae_training_memory_mb,
        runtime=R.sae_training_runtime_min,
        gpu=gpus(SAES, "sae"),
    params:
        sae=sae_settings,
        checkpoints=checkpoint_folder,
        seed=C.seed,
    message:
        "Training {wildcards.sae} on layer {wildcards.layer} of {wildcards.model}"
    script:
        "../workflow/scripts/train_sae.py"


rule calibrate_sae:
    input:
        sae=rules.train_sae.output.best,
        config=rules.train_sae.output.config,
        train=rules.train_sae.input.train,
    output:
        sae=L.sae("calibrated/sae.safetensors"),
        config=L.sae("calibrated/cfg.json"),
        calibration=L.sae("calibrated/calibration.parquet"),
    log:
        L.log("calibrate_sae", "model", "layer", "sae"),
    benchmark:
        L.benchmark("calibrate_sae", "model", "layer", "sae")
    conda:
        "../envs/torch.yaml"
    threads: HALF
    resources:
        mem_mb=R.sae_encoding_memory_mb,
        runtime=R.sae_encoding_runtime_min,
        gpu=gpus(SAES, "sae"),
    params:
        quantile=lambda wildcards: SAES[wildcards.sae].calibration_quantile,
    message:
        "Calibrating {wildcards.sae} on layer {wildcards.layer} of {wildcards.model}"
    script:
        "../workflow/scripts/calibrate_sae.py"


rule export_topk:
    input:
        sae=rules.calibrate_sae.output.sae,
        config=rules.calibrate_sae.output.config,
        activations=rules.extract_activations.output.activations,
        tokens=rules.tokenize_notes.output.tokens,
    output:
        topk=L.sae("topk/{shard}.parquet"),
    log:
        L.log("export_topk", "model", "layer", "sae", "shard"),
    benchmark:
        L.benchmark("export_topk", "model", "layer", "sae", "shard")
    conda:
        "../envs/torch.yaml"
    threads: HALF
    resources:
        mem_mb=R.sae_encoding_memory_mb,
        runtime=R.sae_encoding_runtime_min,
        gpu=gpus(SAES, "sae"),
    params:
        k=lambda wildcards: SAES[wildcards.sae].k,
    message:
        "Exporting the top latents of {wildcards.shard} ({wildcards.model}, {wildcards.sae})"
    script:
        "../workflow/scripts/export_topk.py"
