"""Rule interpret_features: features of one SAE -> their names, and how well the names hold."""

from entry import job

with job(snakemake):
    from medsae.imaging.interpret.run import interpret_sae
    from medsae.io import atomic_path, write_json

    source, params, output = snakemake.input, snakemake.params, snakemake.output
    files = {
        "slices": source.slices,
        "features": source.features,
        "sae_config": source.config,
        "scores": source.scores,
        "recovery": source.recovery,
        "embeddings": params.embeddings,
        "images": params.images,
        "judge_embeddings": params.judge_embeddings,
    }
    result, selected, answers = interpret_sae(
        files, params.settings, params.judge_encoder, params.cache, params.seed
    )
    for table, target in (
        (selected, output.selected),
        (result.descriptions, output.descriptions),
        (result.samples, output.samples),
        (result.statistics, output.statistics),
    ):
        with atomic_path(target) as path:
            table.write_csv(path)
    write_json(output.cache, answers)
    write_json(output.metrics, result.metrics)
