# Figures and words of the imaging study.
IMAGES = "7. Medical images"
IMAGE_SAE_LABELS = {"model": "{encoder}", "sae": "{sae}"}


localrules:
    plot_image_training,
    plot_image_quality,
    plot_image_probes,
    plot_image_retrieval,
    plot_contact_sheet,
    write_imaging_summary,


rule plot_image_training:
    input:
        metrics=rules.train_image_sae.output.metrics,
    output:
        figure=report(
            L.image_sae("figures/training.svg"),
            caption="../report/image_training.rst",
            category=IMAGES,
            labels={"result": "7.4 Training"} | IMAGE_SAE_LABELS,
        ),
    log:
        L.image_log("plot_image_training", "encoder", "sae"),
    benchmark:
        L.image_benchmark("plot_image_training", "encoder", "sae")
    conda:
        "../envs/torch.yaml"
    message:
        "Drawing the training ({wildcards.encoder}, {wildcards.sae})"
    script:
        "../workflow/scripts/plot_image_training.py"


rule plot_image_quality:
    input:
        ranking=L.image("config_ranking.csv"),
    output:
        quality=report(
            L.image("figures/quality.svg"),
            caption="../report/image_quality.rst",
            category=IMAGES,
            labels={"result": "7.2 Quality of the autoencoders"},
        ),
        ranking=report(
            L.image("figures/ranking.svg"),
            caption="../report/image_ranking.rst",
            category=IMAGES,
            labels={"result": "7.3 Ranking of the autoencoders"},
        ),
    log:
        L.image_log("plot_image_quality"),
    benchmark:
        L.image_benchmark("plot_image_quality")
    conda:
        "../envs/torch.yaml"
    message:
        "Drawing the ranking of the image SAEs"
    script:
        "../workflow/scripts/plot_image_quality.py"


rule plot_image_probes:
    input:
        probes=expand(rules.probe_embeddings.output.probes, encoder=ENCODERS),
        recovery=chosen_image_saes(rules.recover_performance.output.recovery),
        ranking=L.image("config_ranking.csv"),
    output:
        probes=report(
            L.image("figures/probes.svg"),
            caption="../report/image_probes.rst",
            category=IMAGES,
            labels={"result": "7.5 What the embeddings know"},
        ),
        probes_data=L.image("figures/probes.csv"),
        recovery=report(
            L.image("figures/recovery.svg"),
            caption="../report/image_recovery.rst",
            category=IMAGES,
            labels={"result": "7.6 What a few features recover"},
        ),
        recovery_data=L.image("figures/recovery.csv"),
    log:
        L.image_log("plot_image_probes"),
    benchmark:
        L.image_benchmark("plot_image_probes")
    conda:
        "../envs/torch.yaml"
    message:
        "Drawing probes and recovery"
    script:
        "../workflow/scripts/plot_image_probes.py"


rule plot_image_retrieval:
    input:
        fingerprint=rules.retrieve_fingerprints.output.summary,
        results=rules.retrieve_fingerprints.output.results,
        language=rules.retrieve_by_language.output.summary,
        slices=rules.join_slices.output.slices,
    output:
        fingerprint=report(
            L.image_sae("figures/fingerprint.svg"),
            caption="../report/image_fingerprint.rst",
            category=IMAGES,
            labels={"result": "7.8 Slices found by fingerprint"} | IMAGE_SAE_LABELS,
        ),
        examples=report(
            L.image_sae("figures/fingerprint_examples.svg"),
            caption="../report/image_fingerprint_examples.rst",
            category=IMAGES,
            labels={"result": "7.9 Examples of fingerprints"} | IMAGE_SAE_LABELS,
        ),
        examples_data=L.image_sae("figures/fingerprint_examples.csv"),
        language=report(
            L.image_sae("figures/language_retrieval.svg"),
            caption="../report/image_language.rst",
            category=IMAGES,
            labels={"result": "7.9 Slices found by words"} | IMAGE_SAE_LABELS,
        ),
    log:
        L.image_log("plot_image_retrieval", "encoder", "sae"),
    benchmark:
        L.image_benchmark("plot_image_retrieval", "encoder", "sae")
    conda:
        "../envs/torch.yaml"
    params:
        images=lambda wildcards: L.image("slices"),
    message:
        "Drawing retrieval ({wildcards.encoder}, {wildcards.sae})"
    script:
        "../workflow/scripts/plot_image_retrieval.py"


rule plot_contact_sheet:
    input:
        scores=rules.score_image_features.output.scores,
        descriptions=rules.interpret_features.output.descriptions,
        samples=rules.interpret_features.output.samples,
        slices=rules.join_slices.output.slices,
    output:
        figure=report(
            L.image_sae("figures/contact_sheet.svg"),
            caption="../report/image_contact_sheet.rst",
            category=IMAGES,
            labels={"result": "7.7 Best features and their slices"} | IMAGE_SAE_LABELS,
        ),
        table=L.image_sae("figures/contact_sheet.csv"),
    log:
        L.image_log("plot_contact_sheet", "encoder", "sae"),
    benchmark:
        L.image_benchmark("plot_contact_sheet", "encoder", "sae")
    conda:
        "../envs/torch.yaml"
    params:
        images=lambda wildcards: L.image("slices"),
    message:
        "Drawing the best features ({wildcards.encoder}, {wildcards.sae})"
    script:
        "../workflow/scripts/plot_contact_sheet.py"


rule write_imaging_summary:
    input:
        slices=rules.join_slices.output.slices,
        scans=rules.join_slices.output.scans,
        quarantine=rules.join_slices.output.quarantine,
        ranking=L.image("config_ranking.csv"),
        chosen=L.image("chosen_configurations.json"),
        probes=expand(rules.probe_embeddings.output.probes, encoder=ENCODERS),
        recovery=chosen_image_saes(rules.recover_performance.output.recovery),
        fingerprints=chosen_image_saes(rules.retrieve_fingerprints.output.summary),
        languages=chosen_image_saes(rules.retrieve_by_language.output.summary),
        metrics=chosen_image_saes(rules.interpret_features.output.metrics),
        figures=[
            every_image_sae(rules.plot_image_training.output.figure),
            rules.plot_image_quality.output,
            rules.plot_image_probes.output,
        ],
        retrieval=chosen_image_saes(rules.plot_image_retrieval.output.examples),
        sheets=chosen_image_saes(rules.plot_contact_sheet.output.figure),
    output:
        markdown=L.image("summary.md"),
        page=report(
            L.image("summary.html"),
            caption="../report/image_summary.rst",
            category=IMAGES,
            labels={"result": "7.1 The answers in words"},
        ),
        headline=L.image("headline.rst"),
    log:
        L.image_log("write_imaging_summary"),
    benchmark:
        L.image_benchmark("write_imaging_summary")
    conda:
        "../envs/torch.yaml"
    params:
        name=IMAGING.name,
        evaluation=EVALUATION.model_dump(
            include={"scored_on", "fingerprints_on", "language_on"}
        ),
        judged_on=INTERPRETATION.judged_on,
    message:
        "Putting the imaging study into words"
    script:
        "../workflow/scripts/write_imaging_summary.py"


IMAGING_RESULTS += [*rules.write_imaging_summary.output]
