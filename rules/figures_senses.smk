# Figures of what the latents say about senses: each one rule, one script, one library module,
# one caption in report/.
localrules:
    plot_jaccard,
    plot_layers,
    plot_entropy,
    plot_sense_linked,
    plot_probes,
    plot_retrieval,
    plot_mixed_effects,
    plot_mixed_effects_diagnostics,
    plot_pooling,
    plot_training_gain,


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


rule plot_training_gain:
    input:
        gain=rules.measure_training_gain.output.gain,
    output:
        figure=report(
            L.sae("figures/training_gain.svg"),
            caption="../report/training_gain.rst",
            category=FOUND,
            labels={"result": "1.4 Overlap that random weights leave unexplained"}
            | SAE_LABELS,
        ),
    log:
        L.log("plot_training_gain", "model", "layer", "sae"),
    benchmark:
        L.benchmark("plot_training_gain", "model", "layer", "sae")
    conda:
        "../envs/report.yaml"
    message:
        "Drawing the overlap beyond random weights ({wildcards.model}, layer {wildcards.layer}, {wildcards.sae})"
    script:
        "../workflow/scripts/plot_training_gain.py"


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
