# MedSAE: sparse autoencoders for medical language and image models, as one workflow.
#
#   rules/common.smk         configuration, paths, resources
#   rules/notes.smk          notes in: checked, split by patient, cut into shards
#   rules/models.smk         language models made ready
#   rules/ner.smk            entity spans in the notes
#   rules/activations.smk    tokens and hidden states, spans aligned to tokens
#   rules/sae.smk            sparse autoencoders: trained, calibrated, applied to every token
#   rules/polysemy.smk       occurrences of each term, their senses and their latents
#   rules/metrics.smk        overlap, entropy, sense-linked latents, probes, retrieval, ablation
#   rules/mixed_effects.smk  mixed-effects models in R, across models and layers
#   rules/imaging_common.smk what the stages of the imaging study share
#   rules/slices.smk         images: scans found, cut into slices, divided into splits
#   rules/embeddings.smk     image encoders, and the embedding of every slice
#   rules/image_sae.smk      the grid of Matryoshka SAEs, and the features of every slice
#   rules/imaging_evaluation.smk  probes, monosemanticity, recovery, ranking, fingerprints
#   rules/interpretation.smk      features named, names tested, slices found by words
#   rules/imaging_figures.smk     their figures and words
#   rules/report.smk         words; rules/figures_*.smk figures
#   rules/plan.smk           what a run will take, before it runs
#   rules/preflight.smk      bad input refused before the first job
#
# config/ says what is studied, profiles/ where it runs.
from snakemake.utils import min_version

min_version("9.0")

if not workflow.config_settings.configfiles:

    configfile: "config/config.yaml"


# Used with `--software-deployment-method apptainer`; built from the Containerfile.
container: "medsae.sif"


include: "rules/common.smk"


report: "report/workflow.rst" if C.models else "report/image_workflow.rst"


if C.models:

    include: "rules/notes.smk"
    include: "rules/models.smk"
    include: "rules/ner.smk"
    include: "rules/activations.smk"
    include: "rules/sae.smk"
    include: "rules/polysemy.smk"
    include: "rules/metrics.smk"
    include: "rules/mixed_effects.smk"
    include: "rules/report.smk"
    include: "rules/plan.smk"

    POLYSEMY_RESULTS = [
        every(L.sae("topk_latents.csv")),
        every(L.sae("viewer/viewer_pack.json")),
        every(L.sae("metrics/summary.json")),
        every(L.model("ner_spans_with_tokens.jsonl")),
        every(L.layer("activations/metadata.json")),
        L.corpus("mixed_effects/fdr_correction.csv"),
        rules.write_summary.output,
        FIGURES,
        rules.plot_benchmarks.output.figure,
    ]


if C.imaging:

    include: "rules/imaging_common.smk"
    include: "rules/slices.smk"
    include: "rules/embeddings.smk"
    include: "rules/image_sae.smk"
    include: "rules/imaging_inputs.smk"
    include: "rules/imaging_evaluation.smk"
    include: "rules/interpretation.smk"
    include: "rules/imaging_figures.smk"


include: "rules/preflight.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        POLYSEMY_RESULTS if C.models else [],
        IMAGING_RESULTS if C.imaging else [],


if C.models:

    localrules:
        polysemy,

    rule polysemy:
        input:
            POLYSEMY_RESULTS,


if C.imaging:

    localrules:
        imaging,

    rule imaging:
        input:
            IMAGING_RESULTS,
