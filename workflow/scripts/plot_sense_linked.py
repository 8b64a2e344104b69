"""Rule plot_sense_linked: sense-linked latents -> counts per sense and figure."""

from entry import job

with job(snakemake):
    from medsae.report.sense_linked import count_linked, draw_sense_linked
    from medsae.report.style import save
    from medsae.report.tables import place, read, write

    counts = count_linked(read(snakemake.input.linked))
    write(counts, snakemake.output.table)
    save(draw_sense_linked(counts, place(**snakemake.wildcards)), snakemake.output.figure)
