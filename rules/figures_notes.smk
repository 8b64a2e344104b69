# Figures of the notes and their entities.
localrules:
    plot_corpus,
    plot_agreement,


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
