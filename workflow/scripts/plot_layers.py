"""Rule plot_layers: overlap tables of every SAE -> their comparison and figure."""

from entry import job

with job(snakemake):
    from medsae.report.layers import compare_places, draw_layers
    from medsae.report.style import save
    from medsae.report.tables import read_all, write

    terms = read_all(snakemake.input.terms)
    places = compare_places(terms)
    write(places, snakemake.output.table)
    figure = draw_layers(terms, places, set(snakemake.params.random_models))
    save(figure, snakemake.output.figure)
