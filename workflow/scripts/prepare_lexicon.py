"""Rule prepare_lexicon: lexicon, controls and sense labels -> one checked table."""

from entry import job

with job(snakemake):
    from medsae.io import atomic_path
    from medsae.polysemy.lexicon import prepare_lexicon

    lexicon = prepare_lexicon(
        snakemake.input.lexicon,
        snakemake.input.controls,
        snakemake.input.sense_labels,
        snakemake.params.ner_labels,
    )
    with atomic_path(snakemake.output.lexicon) as path:
        lexicon.write_csv(path)
