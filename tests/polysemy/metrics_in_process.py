"""Every metric of a folder of planted tables, in a process whose threads its caller sets.

python metrics_in_process.py FOLDER -> a JSON object: table -> digest of its CSV.
"""

import hashlib
import json
import sys
from pathlib import Path

import polars as pl

from medsae.polysemy import sense_probes
from medsae.polysemy.entropy import measure_entropy
from medsae.polysemy.jaccard_tables import measure_jaccard
from medsae.polysemy.linked_latents import find_sense_linked_latents
from medsae.polysemy.pooling import pool_occurrences
from medsae.polysemy.pooling_sensitivity import compare_poolings
from medsae.polysemy.probes import probe_latents
from medsae.polysemy.retrieval_tables import measure_retrieval
from medsae.polysemy.training_gain import measure_training_gain

STATISTICS = {"min_occurrences": 5, "n_permutations": 199, "n_bootstrap": 99, "seed": 7}
K = 16


def main(folder: Path) -> None:
    sense_probes.N_SHUFFLES = 9
    located = pl.read_parquet(folder / "occurrences.parquet")
    topk = sorted((folder / "topk").glob("*.parquet"))
    latents = folder / "latents.parquet"
    source = {"model": pl.lit("m"), "layer": pl.lit(0, pl.Int32), "sae": pl.lit("s")}
    pool_occurrences(located, topk, "mean", K).with_columns(**source).write_parquet(latents)
    calibration = folder / "calibration.parquet"
    pl.DataFrame({"latent_id": range(300), "firing_count": [9] * 300}).write_parquet(calibration)
    linked = find_sense_linked_latents(latents, STATISTICS)
    linked.write_csv(folder / "linked.csv")
    terms, published, pairs = measure_jaccard(latents, [10], STATISTICS)
    single, senses = probe_latents(latents, folder / "linked.csv", STATISTICS)
    other = folder / "other.parquet"
    pool_occurrences(located, topk, "last", K).with_columns(**source).write_parquet(other)
    settings = {"k_sweep": [5, 20], "n_anchor_sweep": [2, 4]}
    activations = sorted((folder / "activations").glob("*.safetensors"))
    detail, sweep, baselines = measure_retrieval(
        latents, folder / "notes.parquet", activations, settings, STATISTICS
    )
    tables = {
        "jaccard_at_k": terms,
        "jaccard_cross_sense": published,
        "jaccard_pairs": pairs,
        "entropy": measure_entropy(latents, calibration, STATISTICS),
        "linked": linked,
        "single_probes": single,
        "sense_probes": senses,
        "retrieval_detail": detail,
        "retrieval_sweep": sweep,
        "retrieval_baselines": baselines,
        "training_gain": measure_training_gain(latents, other, STATISTICS),
        "poolings": compare_poolings(located, topk, "last", K, 10, STATISTICS),
    }
    digests = {
        name: [table.height, hashlib.sha256(table.write_csv().encode()).hexdigest()]
        for name, table in tables.items()
    }
    print(json.dumps(digests))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
