# The figures: each one rule, one script, one library module, one caption in report/.
localrules:
    plot_jaccard,
    plot_entropy,
    plot_sense_linked,
    plot_probes,
    plot_retrieval,
    plot_ablation,
    plot_training,
    plot_layers,
    plot_mixed_effects,
    plot_mixed_effects_diagnostics,
    plot_pooling,
    plot_faithfulness,
    plot_corpus,
    plot_agreement,


rule plot_jaccard:
    input:
        terms=rules.measure_jaccard.output.terms,
    output:
        figure=report(
            L.sae("figures/jaccard.svg"),
            caption="../report/jaccard.rst",
            category=FOUND,
            labels={"result": "1.2 Overlap of latents within and across senses"}
            | SAE_LABELS,
        ),
    log:
        L.log("plot_jaccard", "model", "layer", "sae"),
    benchmark:
        L.benchmark("plot_jaccard", "model", "layer", "sae")
    conda:
        "../envs/report.yaml"
    message:
        "Drawing the overlap of latents ({wildcards.model}, layer {wildcards.layer}, {wildcards.sae})"
    script:
        "../workflow/scripts/plot_jaccard.py"


rule plot_entropy:
    input:
        entropy=rules.measure_entropy.output.entropy,
    output:
        figure=report(
            L.sae("figures/entropy.svg"),
            caption="../report/entropy.rst",
            category=SENSES,
            labels={"result": "2.1 Entropy of the latents of each sense"} | SAE_LABELS,
        ),
    log:
        L.log("plot_entropy", "model", "layer", "sae"),
    benchmark:
        L.benchmark("plot_entropy", "model", "layer", "sae")
    conda:
        "../envs/report.yaml"
    message:
        "Drawing entropies ({wildcards.model}, layer {wildcards.layer}, {wildcards.sae})"
    script:
        "../workflow/scripts/plot_entropy.py"


rule plot_sense_linked:
    input:
        linked=rules.find_sense_linked_latents.output.linked,
    output:
        figure=report(
            L.sae("figures/sense_linked.svg"),
            caption="../report/sense_linked.rst",
            category=SENSES,
            labels={"result": "2.2 Latents linked to one sense"} | SAE_LABELS,
        ),
        table=L.sae("figures/sense_linked.csv"),
    log:
        L.log("plot_sense_linked", "model", "layer", "sae"),
    benchmark:
        L.benchmark("plot_sense_linked", "model", "layer", "sae")
    conda:
        "../envs/report.yaml"
    message:
        "Drawing sense-linked latents ({wildcards.model}, layer {wildcards.layer}, {wildcards.sae})"
    script:
        "../workflow/scripts/plot_sense_linked.py"


rule plot_probes:
    input:
        probes=rules.probe_latents.output.senses,
    output:
        figure=report(
            L.sae("figures/probes.svg"),
            caption="../report/probes.rst",
            category=SENSES,
            labels={"result": "2.3 Senses read off the latents"} | SAE_LABELS,
        ),
    log:
        L.log("plot_probes", "model", "layer", "sae"),
    benchmark:
        L.benchmark("plot_probes", "model", "layer", "sae")
    conda:
        "../envs/report.yaml"
    message:
        "Drawing probes ({wildcards.model}, layer {wildcards.layer}, {wildcards.sae})"
    script:
        "../workflow/scripts/plot_probes.py"


rule plot_retrieval:
    input:
        sweep=rules.measure_retrieval.output.summary,
        baselines=rules.measure_retrieval.output.baselines,
    output:
        figure=report(
            L.sae("figures/retrieval.svg"),
            caption="../report/retrieval.rst",
            category=SENSES,
            labels={"result": "2.4 Retrieval of the same sense"} | SAE_LABELS,
        ),
    log:
        L.log("plot_retrieval", "model", "layer", "sae"),
    benchmark:
        L.benchmark("plot_retrieval", "model", "layer", "sae")
    conda:
        "../envs/report.yaml"
    message:
        "Drawing retrieval ({wildcards.model}, layer {wildcards.layer}, {wildcards.sae})"
    script:
        "../workflow/scripts/plot_retrieval.py"


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


rule plot_layers:
    input:
        terms=every(rules.measure_jaccard.output.terms),
    output:
        figure=report(
            L.corpus("figures/layers.svg"),
            caption="../report/layers.rst",
            category=FOUND,
            labels={"result": "1.3 Where senses separate: models and layers"},
        ),
        table=L.corpus("figures/layers.csv"),
    log:
        L.log("plot_layers"),
    benchmark:
        L.benchmark("plot_layers")
    conda:
        "../envs/report.yaml"
    params:
        random_models=RANDOM_MODELS,
    message:
        "Comparing models and layers"
    script:
        "../workflow/scripts/plot_layers.py"


rule plot_mixed_effects:
    input:
        contrasts=rules.fit_mixed_effects.output.fdr,
        fits=rules.fit_mixed_effects.output.fits,
    output:
        figure=report(
            L.corpus("figures/mixed_effects.svg"),
            caption="../report/mixed_effects.rst",
            category=SENSES,
            labels={"result": "2.5 Mixed-effects models"},
        ),
    log:
        L.log("plot_mixed_effects"),
    benchmark:
        L.benchmark("plot_mixed_effects")
    conda:
        "../envs/report.yaml"
    message:
        "Drawing the planned contrasts"
    script:
        "../workflow/scripts/plot_mixed_effects.py"


rule plot_mixed_effects_diagnostics:
    input:
        diagnostics=rules.fit_mixed_effects.output.diagnostics,
        fits=rules.fit_mixed_effects.output.fits,
    output:
        figure=report(
            L.corpus("figures/mixed_effects_diagnostics.svg"),
            caption="../report/mixed_effects_diagnostics.rst",
            category=SENSES,
            labels={"result": "2.6 Do the mixed-effects models fit?"},
        ),
    log:
        L.log("plot_mixed_effects_diagnostics"),
    benchmark:
        L.benchmark("plot_mixed_effects_diagnostics")
    conda:
        "../envs/report.yaml"
    message:
        "Drawing residuals and random effects"
    script:
        "../workflow/scripts/plot_mixed_effects_diagnostics.py"


rule plot_pooling:
    input:
        poolings=rules.compare_poolings.output.poolings,
    output:
        figure=report(
            L.sae("figures/pooling.svg"),
            caption="../report/pooling.rst",
            category=SENSES,
            labels={"result": "2.7 How the tokens of a term are pooled"} | SAE_LABELS,
        ),
    log:
        L.log("plot_pooling", "model", "layer", "sae"),
    benchmark:
        L.benchmark("plot_pooling", "model", "layer", "sae")
    conda:
        "../envs/report.yaml"
    message:
        "Drawing poolings ({wildcards.model}, layer {wildcards.layer}, {wildcards.sae})"
    script:
        "../workflow/scripts/plot_pooling.py"


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
        sae=rules.calibrate_sae.output.sae,
        config=rules.calibrate_sae.output.config,
        activations=rules.train_sae.input.val,
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
        runtime=R.sae_encoding_runtime_min,
        gpu=gpus(SAES, "sae"),
    params:
        n_positions=lambda wildcards: MODELS[wildcards.model].ctx_len,
    message:
        "Variance explained by position ({wildcards.model}, {wildcards.sae})"
    script:
        "../workflow/scripts/measure_positions.py"


rule plot_corpus:
    input:
        occurrences=rules.find_occurrences.output.occurrences,
        notes=rules.prepare_notes.output.summary,
    output:
        figure=report(
            L.corpus("figures/corpus.svg"),
            caption="../report/corpus.rst",
            category=INPUTS,
            labels={"result": "4.1 Notes and occurrences"},
        ),
        table=L.corpus("figures/corpus.csv"),
    log:
        L.log("plot_corpus"),
    benchmark:
        L.benchmark("plot_corpus")
    conda:
        "../envs/report.yaml"
    params:
        min_occurrences=C.polysemy.min_occurrences,
    message:
        "Counting notes and occurrences"
    script:
        "../workflow/scripts/plot_corpus.py"


rule plot_agreement:
    input:
        agreement=rules.find_occurrences.output.agreement,
    output:
        figure=report(
            L.corpus("figures/agreement.svg"),
            caption="../report/agreement.rst",
            category=INPUTS,
            labels={"result": "4.2 Agreement on senses"},
        ),
    log:
        L.log("plot_agreement"),
    benchmark:
        L.benchmark("plot_agreement")
    conda:
        "../envs/report.yaml"
    message:
        "Drawing agreement on senses"
    script:
        "../workflow/scripts/plot_agreement.py"


FIGURES = [
    path
    for name in (
        "jaccard",
        "entropy",
        "sense_linked",
        "probes",
        "retrieval",
        "ablation",
        "pooling",
        "training",
        "positions",
    )
    for path in every(L.sae(f"figures/{name}.svg"))
] + [
    L.corpus(f"figures/{name}.svg")
    for name in (
        "layers",
        "mixed_effects",
        "mixed_effects_diagnostics",
        "faithfulness",
        "corpus",
        "agreement",
    )
]


if C.corpus.gold_spans:

    localrules:
        plot_ner,

    rule plot_ner:
        input:
            scores=rules.evaluate_ner.output.scores,
        output:
            figure=report(
                L.corpus("figures/ner.svg"),
                caption="../report/ner.rst",
                category=INPUTS,
                labels={"result": "4.3 Entities against gold"},
            ),
        log:
            L.log("plot_ner"),
        benchmark:
            L.benchmark("plot_ner")
        conda:
            "../envs/report.yaml"
        params:
            ner_name=C.ner.name,
        message:
            "Drawing entity recognition"
        script:
            "../workflow/scripts/plot_ner.py"

    FIGURES.append(L.corpus("figures/ner.svg"))
