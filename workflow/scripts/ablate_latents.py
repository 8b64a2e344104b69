"""Rule ablate_latents: model, SAE and sense-linked latents -> ΔCE and its summary."""

from entry import files_in, job

with job(snakemake, same_for_any_threads=True):
    from pathlib import Path

    import polars as pl

    from medsae.config import parse_config
    from medsae.io import atomic_path, fingerprint
    from medsae.polysemy.ablation import PUBLISHED, ablate
    from medsae.polysemy.ablation_plan import (
        choose_latents,
        choose_occurrences,
        read_documents,
        read_linked,
    )
    from medsae.polysemy.ablation_summary import all_senses, summarize_ablation
    from medsae.polysemy.subject import load_subject

    files, how = snakemake.input, snakemake.params
    limits, statistics = how.ablation, how.statistics
    seed = statistics["seed"]
    occurrences, linked = pl.scan_parquet(files.latents), read_linked(files.linked)
    latents = choose_latents(linked, limits["max_latents_per_sense"])
    pairs = choose_occurrences(occurrences, latents, limits["max_occurrences_per_sense"], seed)
    model = parse_config(snakemake.config).model(snakemake.wildcards.model)
    subject = load_subject(
        how.source,
        how.layer,
        files.sae,
        files.calibration,
        how.extraction | model.runtime(),
        limits,
    )
    tokens = files_in(files.tokens)
    inputs = [files.latents, files.linked, files.sae, files.calibration]
    documents = read_documents(tokens, pairs["doc_id"].unique())
    work = pairs.drop("token_positions").write_csv(), {d: documents[d].tolist() for d in documents}
    parts = Path(how.parts) / fingerprint(inputs, how.source, how.extraction, limits, seed, *work)
    deltas = ablate(subject, pairs, documents, linked, parts, seed)
    summary = summarize_ablation(
        deltas, pairs, all_senses(occurrences), statistics["n_permutations"], seed
    )
    place = [
        pl.lit(snakemake.wildcards.model).alias("model"),
        pl.lit(how.layer).alias("layer"),
        pl.lit(snakemake.wildcards.sae).alias("sae"),
    ]
    tables = {
        "deltas": deltas.with_columns(place).select(*PUBLISHED, pl.exclude(PUBLISHED)),
        "summary": summary.select(*place, pl.all()),
    }
    for name, table in tables.items():
        with atomic_path(snakemake.output[name]) as path:
            table.write_csv(path)
