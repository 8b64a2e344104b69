"""Tables of a study with planted effects, as the workflow writes them."""

import numpy as np
import polars as pl

from medsae.mixed_effects import delta_ce_table, entropy_table, jaccard_table, overlap_table
from medsae.mixed_effects.data import PLACE

MODELS = ("alpha", "beta")


def write_jaccard(path, model, effect, seed=0, n_lemmas=12, per=60):
    """Overlap = 0.3 + effect[model] within senses + lemma + notes + noise; controls have none.

    That of the 10 strongest latents is half of it.
    """
    rng = np.random.default_rng(seed)
    docs = {f"d{i}": x for i, x in enumerate(rng.normal(0, 0.02, 80))}
    names = list(docs)
    rows = []
    for index in range(n_lemmas):
        polysemous = index < n_lemmas - 4
        lemma, slope = rng.normal(0, 0.04), rng.normal(0, 0.01)
        for pair_type in ("within", "cross"):
            for _ in range(per):
                a, b = rng.choice(names, 2, replace=False)
                y = 0.3 + lemma + docs[a] + docs[b] + rng.normal(0, 0.03)
                if polysemous and pair_type == "within":
                    y += effect + slope
                rows.append(
                    {
                        "model": model,
                        "layer": 14,
                        "sae": "topk",
                        "lemma": f"l{index}",
                        "kind": "polysemous" if polysemous else "control",
                        "pair_type": pair_type,
                        "sense_a": "one",
                        "sense_b": "one" if pair_type == "within" else "two",
                        "jaccard_at_10": min(max(y, 0.0), 1.0) / 2,
                        "jaccard": min(max(y, 0.0), 1.0),
                        "doc_a": a,
                        "doc_b": b,
                        "patient_a": a,
                        "patient_b": b,
                    }
                )
    pl.DataFrame(rows).write_parquet(path)
    return path


def overlaps_of(pairs):
    """Δ of each ambiguous term over ``pairs``, all that it has: a table as of `overlap_table`."""
    measures = [name for name in pairs.columns if name.startswith("jaccard")]
    by_sense = (
        pairs.filter(pl.col("polysemy") == "polysemous")
        .with_columns(pl.concat_list("sense_a", "sense_b").list.sort().alias("senses"))
        .group_by("lemma", *PLACE, "pair_type", "senses")
        .agg(pl.col(measures).mean())
    )

    def mean(name, pair_type):
        return pl.col(name).filter(pl.col("pair_type") == pair_type).mean()

    deltas = {name: mean(name, "within") - mean(name, "cross") for name in measures}
    return by_sense.group_by("lemma", *PLACE).agg(**deltas)


def write_overlaps(path, pairs):
    """``jaccard_at_k.csv`` of the ``pairs`` at 10 and at all 40 latents."""
    deltas = overlaps_of(jaccard_table([pairs]))
    kind = pl.lit("polysemous").alias("kind")
    parts = [
        deltas.select(*PLACE, "lemma", kind, pl.lit(k).alias("k"), pl.col(name).alias("delta"))
        for k, name in ((10, "jaccard_at_10"), (40, "jaccard"))
    ]
    pl.concat(parts).write_csv(path)
    return path


def write_entropy(path, model, difference, seed=1, n_lemmas=24):
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(n_lemmas):
        kind = "polysemous" if index % 2 else "control"
        lemma = rng.normal(0, 0.02)
        for sense in ("a", "b") if kind == "polysemous" else (None,):
            y = 0.5 + lemma + (difference if kind == "polysemous" else 0) + rng.normal(0, 0.02)
            rows.append(
                {
                    "lemma": f"l{index}",
                    "sense": sense,
                    "normalized_entropy": y,
                    "rarefied_normalized": y,
                    "kind": kind,
                    "layer": 14,
                    "model": model,
                    "sae": "topk",
                }
            )
    pl.DataFrame(rows).write_csv(path)
    return path


def write_deltas(path, model, did, seed=2, n_lemmas=8):
    """asinh ΔCE = 0.1 + 0.05 linked + did · linked · on + 0.02 ln activation + lemma + noise."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(n_lemmas):
        lemma = rng.normal(0, 0.02)
        for latent in range(6):
            effect = rng.normal(0, 0.02)
            for occurrence in range(12):
                on, linked = occurrence % 2 == 0, latent % 2 == 0
                activation = float(rng.lognormal())
                mean = 0.1 + 0.05 * linked + did * linked * on + 0.02 * np.log(activation)
                rows.append(
                    {
                        "lemma": f"l{index}",
                        "sense": "a",
                        "latent_id": 100 * index + latent,
                        "doc_id": f"d{rng.integers(40)}",
                        "batch_idx": 0,
                        "delta_ce": float(np.sinh(mean + lemma + effect + rng.normal(0, 0.03))),
                        "on_sense": on,
                        "linked": linked,
                        "matched_to": None if linked else 100 * index + latent - 1,
                        "activation": activation,
                        "layer": 14,
                        "model": model,
                        "sae": "topk",
                    }
                )
    pl.DataFrame(rows).write_csv(path)
    return path


def tables(folder, models=MODELS, shift=0.0):
    terms, pairs, entropy, deltas = [], [], [], []
    for number, model in enumerate(models):
        pairs.append(
            write_jaccard(
                folder / f"j{number}.parquet", model, 0.10 + 0.05 * number + shift, number
            )
        )
        terms.append(write_overlaps(folder / f"t{number}.csv", pairs[-1]))
        entropy.append(write_entropy(folder / f"e{number}.csv", model, 0.08, 10 + number))
        deltas.append(write_deltas(folder / f"d{number}.csv", model, 0.15, 20 + number))
    return {
        "overlap": overlap_table(terms),
        "jaccard": jaccard_table(pairs),
        "entropy": entropy_table(entropy),
        "delta_ce": delta_ce_table(deltas),
    }
