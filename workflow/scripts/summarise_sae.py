"""Rule summarise_sae: the metrics of one SAE -> its headline numbers."""

from entry import job

with job(snakemake):
    import json
    from pathlib import Path

    from medsae.io import write_json
    from medsae.report import headline
    from medsae.report.tables import read

    source = snakemake.input
    training = json.loads(Path(source.training).read_text(encoding="utf-8"))
    where = snakemake.wildcards
    write_json(
        snakemake.output.summary,
        {
            "model": where.model,
            "layer": int(where.layer),
            "sae": where.sae,
            "overlap": headline.summarise_overlap(read(source.jaccard)),
            "pooling": headline.summarise_pooling(read(source.poolings)),
            "sense_linked": headline.summarise_linked(read(source.linked)),
            "probes": headline.summarise_probes(read(source.probes)),
            "retrieval": headline.summarise_retrieval(read(source.sweep), read(source.baselines)),
            "ablation": headline.summarise_ablation(read(source.ablation)),
            "faithfulness": headline.summarise_faithfulness(read(source.faithfulness)),
            "training": {name: training[name] for name in ("step", "val_nmse", "val_fvu")},
            "dead_fraction": headline.dead_fraction(read(source.calibration)),
        },
    )
