"""Rule measure_faithfulness: model and SAE on held-out notes -> loss recovered, FVU."""

from entry import files_in, job

with job(snakemake, same_for_any_threads=True):
    import polars as pl

    from medsae.config import parse_config
    from medsae.io import atomic_path
    from medsae.polysemy.faithfulness import measure_faithfulness, sample_windows
    from medsae.polysemy.subject import load_subject

    files, how, wildcards = snakemake.input, snakemake.params, snakemake.wildcards
    statistics = how.statistics
    model = parse_config(snakemake.config).model(wildcards.model)
    subject = load_subject(
        how.source,
        how.layer,
        files.sae,
        files.calibration,
        how.extraction | model.runtime(),
        how.ablation,
    )
    held_out = [path for path in files_in(files.tokens) if path.name.startswith("val-")]
    windows = sample_windows(pl.scan_parquet(held_out), subject.ctx_len, statistics["seed"])
    table = measure_faithfulness(
        subject, windows, how.random_weights, statistics["n_bootstrap"], statistics["seed"]
    )
    place = [
        pl.lit(wildcards.model).alias("model"),
        pl.lit(how.layer).alias("layer"),
        pl.lit(wildcards.sae).alias("sae"),
    ]
    with atomic_path(snakemake.output.faithfulness) as path:
        table.select(*place, pl.all()).write_csv(path)
