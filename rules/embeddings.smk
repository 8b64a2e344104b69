# Image encoders made ready, and the embedding of every slice.


rule prepare_image_encoder:
    output:
        folder=directory(L.prepared_encoder("{encoder}")),
    log:
        L.image_log("prepare_image_encoder", "encoder"),
    benchmark:
        L.image_benchmark("prepare_image_encoder", "encoder")
    conda:
        "../envs/imaging.yaml"
    params:
        source=lambda wildcards: ENCODERS[wildcards.encoder].source,
        random_weights=lambda wildcards: ENCODERS[wildcards.encoder].random_weights,
        seed=C.seed,
    message:
        "Preparing the weights of {wildcards.encoder}"
    script:
        "../workflow/scripts/prepare_image_encoder.py"


rule embed_slices:
    input:
        unpack(image_encoder),
        scans=rules.slice_scans.output.scans,
    output:
        status=L.encoder("embeddings/{batch}.parquet"),
    log:
        L.image_log("embed_slices", "encoder", "batch"),
    benchmark:
        L.image_benchmark("embed_slices", "encoder", "batch")
    conda:
        "../envs/imaging.yaml"
    threads: HALF
    resources:
        mem_mb=R.embedding_memory_mb,
        gpu=gpus(ENCODERS, "encoder"),
    params:
        encoder=image_encoder_settings,
        patches=lambda wildcards: L.encoder("patches").format(**wildcards),
    message:
        "Embedding the slices of {wildcards.batch} with {wildcards.encoder}"
    script:
        "../workflow/scripts/embed_slices.py"


IMAGING_RESULTS += expand(
    rules.embed_slices.output.status, encoder=ENCODERS, batch=L.batches
)
