"""Rule score_image_features: features of every slice -> monosemanticity of every feature."""

from entry import job

with job(snakemake):
    from medsae.imaging.artifacts import read_slices
    from medsae.imaging.score_features import score_features
    from medsae.io import atomic_path

    table = score_features(
        snakemake.input.features,
        read_slices(snakemake.input.slices),
        snakemake.input.config,
        snakemake.params.splits,
        snakemake.params.seed,
    )
    with atomic_path(snakemake.output.scores) as path:
        table.write_csv(path)
