"""Rule find_occurrences: notes, lexicon, entities (and gold) -> occurrences with senses."""

from entry import job

with job(snakemake):
    from medsae.io import atomic_path
    from medsae.polysemy.columns import tidy
    from medsae.polysemy.lexicon import read_lexicon
    from medsae.polysemy.occurrences import find_occurrences, read_gold_senses
    from medsae.polysemy.senses import sense_agreement

    lexicon = read_lexicon(snakemake.input.lexicon)
    gold = snakemake.input.get("gold")
    occurrences = find_occurrences(
        snakemake.input.notes,
        lexicon,
        snakemake.input.spans,
        read_gold_senses(gold, lexicon) if gold else None,
        snakemake.params.sense_source,
    )
    agreement = sense_agreement(occurrences, snakemake.params.n_bootstrap, snakemake.params.seed)
    with atomic_path(snakemake.output.occurrences) as path:
        occurrences.drop("resolved_sense").write_parquet(path)
    with atomic_path(snakemake.output.agreement) as path:
        tidy(agreement).write_csv(path)
