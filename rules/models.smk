# Language models made ready.


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


def language_model(wildcards):
    """The folder of a language model as an input, where a rule makes it."""
    model = MODELS[wildcards.model]
    made_here = model.source.startswith("package:") or model.random_weights
    return {"folder": L.prepared_model(model.name)} if made_here else {}


def language_model_source(wildcards):
    """Where the scripts load the language model from."""
    return language_model(wildcards).get("folder", MODELS[wildcards.model].source)


def extraction_settings(wildcards):
    """How the hidden states of a language model are computed."""
    keys = {
        "dtype",
        "store_dtype",
        "attention",
        "ctx_len",
        "stride",
        "tokens_per_batch",
        "trust_remote_code",
    }
    return MODELS[wildcards.model].model_dump(include=keys)
