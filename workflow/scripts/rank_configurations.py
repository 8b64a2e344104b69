"""Rule rank_configurations: scores and recovery of every SAE -> their ranking per encoder."""

from entry import job

with job(snakemake):
    from medsae.imaging.ranking import chosen_configurations, config_ranking
    from medsae.io import atomic_path, write_json

    source = snakemake.input
    configurations = [
        names
        | {"scores": scores, "recovery": recovery, "sae_config_file": config, "quality": quality}
        for names, scores, recovery, config, quality in zip(
            snakemake.params.configurations,
            source.scores,
            source.recovery,
            source.configs,
            source.quality,
            strict=True,
        )
    ]
    ranking = config_ranking(configurations)
    with atomic_path(snakemake.output.ranking) as path:
        ranking.write_csv(path)
    write_json(snakemake.output.chosen, chosen_configurations(ranking))
