# Mixed-effects models in R, over all models, layers and SAEs of the configuration.


rule fit_mixed_effects:
    input:
        terms=every(rules.measure_jaccard.output.terms),
        pairs=every(rules.measure_jaccard.output.pairs),
        entropy=every(rules.measure_entropy.output.entropy),
        deltas=every(rules.ablate_latents.output.deltas),
    output:
        jaccard=L.corpus("mixed_effects/coefs_jaccard.csv"),
        entropy=L.corpus("mixed_effects/coefs_entropy.csv"),
        delta_ce=L.corpus("mixed_effects/coefs_delta_ce.csv"),
        model_jaccard=L.corpus("mixed_effects/model_jaccard.rds"),
        model_entropy=L.corpus("mixed_effects/model_entropy.rds"),
        model_delta_ce=L.corpus("mixed_effects/model_delta_ce.rds"),
        fdr=L.corpus("mixed_effects/fdr_correction.csv"),
        fits=L.corpus("mixed_effects/fits.csv"),
        diagnostics=L.corpus("mixed_effects/diagnostics.csv"),
    log:
        L.log("fit_mixed_effects"),
    benchmark:
        L.benchmark("fit_mixed_effects")
    conda:
        "../envs/r.yaml"
    resources:
        mem_mb=R.table_memory_mb,
    params:
        seed=C.seed,
        random_models=RANDOM_MODELS,
        untrained=C.untrained,
    message:
        "Fitting mixed-effects models in R"
    script:
        "../workflow/scripts/fit_mixed_effects.py"
