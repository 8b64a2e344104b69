"""Rule fit_mixed_effects: metrics of all models, layers and SAEs -> models in R."""

from entry import job

with job(snakemake):
    from medsae.io import atomic_path
    from medsae.mixed_effects import (
        delta_ce_table,
        entropy_table,
        fit_study,
        jaccard_table,
        overlap_table,
        save_models,
    )

    files = snakemake.output
    tables = {
        "overlap": overlap_table(snakemake.input.terms),
        "jaccard": jaccard_table(snakemake.input.pairs),
        "entropy": entropy_table(snakemake.input.entropy),
        "delta_ce": delta_ce_table(snakemake.input.deltas),
    }
    params = snakemake.params
    results = fit_study(tables, params.seed, params.random_models, params.untrained)
    for name in results.models:
        save_models(files[f"model_{name}"], results.models[name])
        with atomic_path(files[name]) as path:
            results.coefficients[name].write_csv(path)
    with atomic_path(files.fdr) as path:
        results.contrasts.write_csv(path)
    with atomic_path(files.fits) as path:
        results.fits.write_csv(path)
    with atomic_path(files.diagnostics) as path:
        results.diagnostics.write_csv(path)
