# Sparse autoencoders: trained, calibrated, applied to every token.
# No params: the name holds the keys of its members, and these all that their weights depend on.
rule train_saes:
    input:
        activations=rules.describe_activations.output.metadata,
    output:
        done=touch(L.together("{group}")),
    log:
        L.log("train_saes", "model", "layer", "group"),
    benchmark:
        L.benchmark("train_saes", "model", "layer", "group")
    conda:
        "../envs/torch.yaml"
    threads: HALF
    resources:
        mem_mb=lambda wildcards, attempt: R.saes_training_memory_mb(
            of_group(wildcards), wildcards, attempt
        ),
        runtime=lambda wildcards, attempt: R.saes_training_runtime_min(
            of_group(wildcards), wildcards, attempt
        ),
        gpu=lambda wildcards: of_group(wildcards)[0].gpus,
    message:
        "Training SAEs together on layer {wildcards.layer} of {wildcards.model}"
    script:
        "../workflow/scripts/train_saes.py"


rule train_sae:
    input:
        unpack(trained_together),
        activations=rules.describe_activations.output.metadata,
    output:
        best=L.sae("sae/best.safetensors"),
        latest=L.sae("sae/latest.safetensors"),
        config=L.sae("sae/cfg.json"),
        best_meta=L.sae("sae/best_meta.json"),
        metrics=L.sae("sae/train_metrics.parquet"),
        latents=L.sae("sae/latents.parquet"),
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
        activations=rules.describe_activations.output.metadata,
        sae=rules.train_sae.output.best,
        config=rules.train_sae.output.config,
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
        runtime=R.calibration_runtime_min,
        gpu=gpus(SAES, "sae"),
    params:
        quantile=lambda wildcards: SAES[wildcards.sae].calibration_quantile,
    message:
        "Calibrating {wildcards.sae} on layer {wildcards.layer} of {wildcards.model}"
    script:
        "../workflow/scripts/calibrate_sae.py"


rule export_topk:
    input:
        activations=rules.describe_activations.output.metadata,
        sae=rules.calibrate_sae.output.sae,
        config=rules.calibrate_sae.output.config,
        tokens=rules.tokenize_notes.output.tokens,
    output:
        topk=directory(L.sae("topk/{part}")),
    log:
        L.log("export_topk", "model", "layer", "sae", "part"),
    benchmark:
        L.benchmark("export_topk", "model", "layer", "sae", "part")
    conda:
        "../envs/torch.yaml"
    threads: HALF
    resources:
        mem_mb=R.sae_encoding_memory_mb,
        runtime=R.topk_runtime_min,
        gpu=gpus(SAES, "sae"),
    params:
        shards=lambda wildcards: PARTS[wildcards.part],
        k=lambda wildcards: SAES[wildcards.sae].k,
        unfinished=lambda wildcards: L.sae("checkpoints/topk/{part}").format(
            **wildcards
        ),
    message:
        "Exporting the top latents of every token of {wildcards.part} ({wildcards.model}, {wildcards.sae})"
    script:
        "../workflow/scripts/export_topk.py"


rule export_sae:
    input:
        sae=rules.calibrate_sae.output.sae,
        config=rules.calibrate_sae.output.config,
    output:
        folder=directory(L.sae("interchange/{library}")),
    log:
        L.log("export_sae", "model", "layer", "sae", "library"),
    benchmark:
        L.benchmark("export_sae", "model", "layer", "sae", "library")
    wildcard_constraints:
        library="saelens|sparsify",
    conda:
        "../envs/torch.yaml"
    message:
        "Writing {wildcards.sae} for {wildcards.library}"
    script:
        "../workflow/scripts/export_sae.py"
