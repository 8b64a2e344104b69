# The grid of Matryoshka SAEs on every encoder, and the sparse features of every slice.


rule train_image_sae:
    input:
        status=batches(rules.embed_slices.output.status),
        scans=rules.join_slices.output.scans,
    output:
        best=L.image_sae("sae/best.safetensors"),
        latest=L.image_sae("sae/latest.safetensors"),
        config=L.image_sae("sae/cfg.json"),
        best_meta=L.image_sae("sae/best_meta.json"),
        metrics=L.image_sae("sae/train_metrics.parquet"),
        latents=L.image_sae("sae/latents.parquet"),
    log:
        L.image_log("train_image_sae", "encoder", "sae"),
    benchmark:
        L.image_benchmark("train_image_sae", "encoder", "sae")
    conda:
        "../envs/torch.yaml"
    threads: HALF
    resources:
        mem_mb=R.image_sae_memory_mb,
        gpu=IMAGING.saes.gpus,
    params:
        sae=image_sae_settings,
        epochs=IMAGING.saes.epochs,
        shards=image_shards,
        checkpoints=image_checkpoints,
        seed=C.seed,
    message:
        "Training {wildcards.sae} on {wildcards.encoder}"
    script:
        "../workflow/scripts/train_image_sae.py"


rule encode_features:
    input:
        status=batches(rules.embed_slices.output.status),
        slices=rules.join_slices.output.slices,
        sae=rules.train_image_sae.output.best,
        config=rules.train_image_sae.output.config,
    output:
        features=L.image_sae("features.parquet"),
        quality=L.image_sae("sae_quality.csv"),
    log:
        L.image_log("encode_features", "encoder", "sae"),
    benchmark:
        L.image_benchmark("encode_features", "encoder", "sae")
    conda:
        "../envs/torch.yaml"
    threads: HALF
    resources:
        mem_mb=R.image_sae_memory_mb,
        gpu=IMAGING.saes.gpus,
    params:
        shards=image_shards,
    message:
        "Features of {wildcards.sae} on {wildcards.encoder}"
    script:
        "../workflow/scripts/encode_features.py"


IMAGING_RESULTS += every_image_sae(rules.encode_features.output.features)
IMAGING_RESULTS += every_image_sae(rules.encode_features.output.quality)
