# Figures and words. `snakemake --report report.html` gathers them in the order of the categories.
FOUND = "1. What was found"
SENSES = "2. Senses in the latents"
CAUSES = "3. What the latents do"
INPUTS = "4. The notes and their entities"
TRAINING = "5. The autoencoders"
RUN = "6. The run"

SAE_LABELS = {"model": "{model}", "layer": "{layer}", "sae": "{sae}"}


include: "figures_senses.smk"
include: "figures_saes.smk"
include: "figures_notes.smk"


SAE_FIGURES = [
    "jaccard",
    "entropy",
    "sense_linked",
    "probes",
    "retrieval",
    "pooling",
    "ablation",
    "positions",
    "training",
]
CORPUS_FIGURES = [
    "layers",
    "mixed_effects",
    "mixed_effects_diagnostics",
    "faithfulness",
    "corpus",
    "agreement",
    *(["ner"] if C.corpus.gold_spans else []),
]
FIGURES = (
    [L.corpus(f"figures/{name}.svg") for name in CORPUS_FIGURES]
    + [path for name in SAE_FIGURES for path in every(L.sae(f"figures/{name}.svg"))]
    + every_trained(L.sae("figures/training_gain.svg"))
)


localrules:
    summarise_sae,
    write_summary,
    plot_benchmarks,


rule summarise_sae:
    input:
        jaccard=rules.measure_jaccard.output.terms,
        poolings=rules.compare_poolings.output.poolings,
        linked=rules.find_sense_linked_latents.output.linked,
        probes=rules.probe_latents.output.senses,
        sweep=rules.measure_retrieval.output.summary,
        baselines=rules.measure_retrieval.output.baselines,
        ablation=rules.ablate_latents.output.summary,
        faithfulness=rules.measure_faithfulness.output.faithfulness,
        calibration=rules.calibrate_sae.output.calibration,
        training=rules.train_sae.output.best_meta,
    output:
        summary=L.sae("metrics/summary.json"),
    log:
        L.log("summarise_sae", "model", "layer", "sae"),
    benchmark:
        L.benchmark("summarise_sae", "model", "layer", "sae")
    conda:
        "../envs/report.yaml"
    message:
        "Headline numbers of {wildcards.sae} on layer {wildcards.layer} of {wildcards.model}"
    script:
        "../workflow/scripts/summarise_sae.py"


rule write_summary:
    input:
        summaries=every(rules.summarise_sae.output.summary),
        jaccard=every(rules.measure_jaccard.output.terms),
        gains=every_trained(rules.measure_training_gain.output.gain),
        notes=rules.prepare_notes.output.summary,
        agreement=rules.find_occurrences.output.agreement,
        contrasts=rules.fit_mixed_effects.output.fdr,
        fits=rules.fit_mixed_effects.output.fits,
        ner=rules.evaluate_ner.output.scores if C.corpus.gold_spans else [],
    output:
        markdown=L.corpus("summary.md"),
        page=report(
            L.corpus("summary.html"),
            caption="../report/summary.rst",
            category=FOUND,
            labels={"result": "1.1 The answers in words"},
        ),
        headline=L.corpus("headline.rst"),
    log:
        L.log("write_summary"),
    benchmark:
        L.benchmark("write_summary")
    conda:
        "../envs/report.yaml"
    params:
        corpus=C.corpus.name,
        random_models=RANDOM_MODELS,
        ner_name=C.ner.name,
        synthetic=C.corpus.notes == L.demo("notes.csv"),
        sense_source=C.polysemy.sense_source,
    message:
        "Putting the answers into words"
    script:
        "../workflow/scripts/write_summary.py"


rule plot_benchmarks:
    input:
        rules.write_summary.output,
        FIGURES,
        every(rules.write_topk_csv.output.table),
        every(rules.build_viewer.output.pack),
        every(rules.align_spans.output.spans),
    output:
        figure=report(
            L.corpus("figures/benchmarks.svg"),
            caption="../report/benchmarks.rst",
            category=RUN,
            labels={"result": "6.1 Time and memory of every rule"},
        ),
        table=L.corpus("benchmarks.csv"),
    log:
        L.log("plot_benchmarks"),
    conda:
        "../envs/report.yaml"
    params:
        folder=lambda wildcards: L.corpus("benchmarks"),
    message:
        "Gathering the time and memory of every rule"
    script:
        "../workflow/scripts/plot_benchmarks.py"
