# Figures of the autoencoders: what their latents do, how well they explain, how they trained.
localrules:
    plot_ablation,
    plot_faithfulness,
    plot_training,


rule plot_ablation:
    input:
        summary=rules.ablate_latents.output.summary,
    output:
        figure=report(
            L.sae("figures/ablation.svg"),
            caption="../report/ablation.rst",
            category=CAUSES,
            labels={"result": "3.1 Removing sense-linked latents"} | SAE_LABELS,
        ),
    log:
        L.log("plot_ablation", "model", "layer", "sae"),
    benchmark:
        L.benchmark("plot_ablation", "model", "layer", "sae")
    conda:
        "../envs/report.yaml"
    message:
        "Drawing ablations ({wildcards.model}, layer {wildcards.layer}, {wildcards.sae})"
    script:
        "../workflow/scripts/plot_ablation.py"


rule plot_faithfulness:
    input:
        scores=every(rules.measure_faithfulness.output.faithfulness),
    output:
        figure=report(
            L.corpus("figures/faithfulness.svg"),
            caption="../report/faithfulness.rst",
            category=CAUSES,
            labels={"result": "3.2 Faithfulness of the autoencoders"},
        ),
        table=L.corpus("figures/faithfulness.csv"),
    log:
        L.log("plot_faithfulness"),
    benchmark:
        L.benchmark("plot_faithfulness")
    conda:
        "../envs/report.yaml"
    message:
        "Drawing faithfulness"
    script:
        "../workflow/scripts/plot_faithfulness.py"


rule measure_positions:
    input:
        activations=rules.describe_activations.output.metadata,
        sae=rules.calibrate_sae.output.sae,
        config=rules.calibrate_sae.output.config,
        tokens=rules.tokenize_notes.output.tokens,
    output:
        table=L.sae("metrics/explained_variance_by_position.csv"),
        figure=report(
            L.sae("figures/positions.svg"),
            caption="../report/positions.rst",
            category=CAUSES,
            labels={"result": "3.3 Variance explained by position"} | SAE_LABELS,
        ),
    log:
        L.log("measure_positions", "model", "layer", "sae"),
    benchmark:
        L.benchmark("measure_positions", "model", "layer", "sae")
    conda:
        "../envs/torch.yaml"
    threads: HALF
    resources:
        mem_mb=R.sae_encoding_memory_mb,
        runtime=R.validation_runtime_min,
        gpu=gpus(SAES, "sae"),
    params:
        n_positions=lambda wildcards: MODELS[wildcards.model].ctx_len,
    message:
        "Variance explained by position ({wildcards.model}, {wildcards.sae})"
    script:
        "../workflow/scripts/measure_positions.py"


rule plot_training:
    input:
        metrics=rules.train_sae.output.metrics,
    output:
        figure=report(
            L.sae("figures/training.svg"),
            caption="../report/training.rst",
            category=TRAINING,
            labels={"result": "5.1 Training"} | SAE_LABELS,
        ),
    log:
        L.log("plot_training", "model", "layer", "sae"),
    benchmark:
        L.benchmark("plot_training", "model", "layer", "sae")
    conda:
        "../envs/report.yaml"
    message:
        "Drawing the training ({wildcards.model}, layer {wildcards.layer}, {wildcards.sae})"
    script:
        "../workflow/scripts/plot_training.py"
