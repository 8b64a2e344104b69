# Language models made ready.
RANDOM_MODELS = [model.name for model in C.models if model.random_weights]


rule prepare_language_model:
    output:
        folder=directory(L.prepared_model("{model}")),
    log:
        L.log("prepare_language_model", "model"),
    benchmark:
        L.benchmark("prepare_language_model", "model")
    conda:
        "../envs/torch.yaml"
    params:
        source=lambda wildcards: MODELS[wildcards.model].source,
        random_weights=lambda wildcards: MODELS[wildcards.model].random_weights,
        trust_remote_code=lambda wildcards: MODELS[wildcards.model].trust_remote_code,
        seed=C.seed,
    message:
        "Preparing the weights of {wildcards.model}"
    script:
        "../workflow/scripts/prepare_language_model.py"
