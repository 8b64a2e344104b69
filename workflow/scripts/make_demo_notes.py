"""Rule make_demo_notes: a seed -> synthetic clinical notes with gold spans and senses."""

from entry import job

with job(snakemake):
    from medsae.notes.synthetic import generate_corpus, write_corpus

    for role, size, prefix in (
        ("study", snakemake.params.n_notes, ""),
        ("ner_training", snakemake.params.n_training_notes, "training_"),
    ):
        write_corpus(
            generate_corpus(size, snakemake.params.seed, role),
            snakemake.output[f"{prefix}notes"],
            snakemake.output[f"{prefix}spans"],
            snakemake.output[f"{prefix}senses"],
        )
