"""Rule rank_configurations: scores and recovery of every SAE -> their ranking per encoder."""

from entry import job

with job(snakemake):
    from medsae.imaging.ranking import chosen_configurations, config_ranking
    from medsae.io import atomic_path, write_json

    source = snakemake.input
    configurations = [
        {
            "base_model": encoder,
            "sae_config": sae,
            "scores": scores,
            "recovery": recovery,
            "sae_config_file": config,
            "best_meta": meta,
        }
        for (encoder, sae), scores, recovery, config, meta in zip(
            snakemake.params.configurations,
            source.scores,
            source.recovery,
            source.configs,
            source.best_meta,
            strict=True,
        )
    ]
    ranking = config_ranking(configurations, snakemake.params.split)
    with atomic_path(snakemake.output.ranking) as path:
        ranking.write_csv(path)
    write_json(snakemake.output.chosen, chosen_configurations(ranking))
