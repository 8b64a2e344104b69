"""Planted occurrences: which latents fire depends on the sense exactly as much as a test says."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from hypothesis import settings

# how long an example takes says nothing about whether it holds
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@dataclass(frozen=True)
class Plan:
    """What is planted for one term.

    ``strength``: share of an occurrence's latents drawn from its sense's own; ``patient_share``:
    share drawn from its patient's own (dependence within patients that no sense explains).
    """

    lemma: str
    senses: tuple[str, ...] = ("one", "two")
    n_patients: int = 40
    per_patient: tuple[int, ...] = (1, 2, 3)
    mixed_patients: float = 0.3
    strength: float = 0.0
    patient_share: float = 0.0
    kind: str = "polysemous"
    seed: int = 0


def build(plans, n_latents=300, k=16):
    """An ``occurrence_latents`` table of the planned terms, in corpus order."""
    rows = []
    for number, plan in enumerate(plans):
        rng = np.random.default_rng([plan.seed, number])
        own = {sense: np.arange(20) + 20 * index for index, sense in enumerate(plan.senses)}
        background = np.arange(120, n_latents)
        for patient in range(plan.n_patients):
            favourite = rng.choice(background, 20, replace=False)
            main = rng.choice(plan.senses)
            mixed = rng.random() < plan.mixed_patients
            for place in range(rng.choice(plan.per_patient)):
                sense = rng.choice(plan.senses) if mixed else main
                n_own = rng.binomial(k, plan.strength)
                n_favourite = rng.binomial(k - n_own, plan.patient_share)
                ids = np.concatenate(
                    [
                        rng.choice(own[sense], min(n_own, 20), replace=False),
                        rng.choice(favourite, n_favourite, replace=False),
                    ]
                )
                pool = np.setdiff1d(np.arange(120, n_latents), ids)
                ids = np.concatenate([ids, rng.choice(pool, k - len(ids), replace=False)])
                ids = rng.permutation(ids)
                z = np.sort(rng.gamma(2.0, size=k))[::-1]
                rows.append(
                    {
                        "doc_id": f"d{patient:03d}-{place // 2}",
                        "patient_id": f"p{patient:03d}",
                        "split": "train",
                        "lemma": plan.lemma,
                        "kind": plan.kind,
                        "sense": sense if plan.kind == "polysemous" else None,
                        "char_start": 1000 * number + 10 * place,
                        "char_end": 1000 * number + 10 * place + 5,
                        "shard": "train-00000",
                        "row_start": len(rows),
                        "row_end": len(rows) + 1,
                        "latent_ids": ids.astype(int).tolist(),
                        "z_values": z.tolist(),
                        "z_values_norm": (z / z.max()).tolist(),
                    }
                )
    table = pl.DataFrame(
        rows,
        schema_overrides={
            "latent_ids": pl.List(pl.Int32),
            "z_values": pl.List(pl.Float32),
            "z_values_norm": pl.List(pl.Float32),
            "char_start": pl.UInt32,
            "char_end": pl.UInt32,
            "row_start": pl.UInt64,
            "row_end": pl.UInt64,
            "sense": pl.String,
        },
    ).sort("doc_id", "char_start")
    return table.with_row_index("occurrence_id").with_columns(
        pl.lit("tiny").alias("model"),
        pl.lit(3, pl.Int32).alias("layer"),
        pl.lit("topk").alias("sae"),
    )


@pytest.fixture(scope="session")
def plant():
    """A function (dicts of ``Plan`` fields…) -> occurrence_latents table."""
    return lambda *plans, **settings: build([Plan(**plan) for plan in plans], **settings)


@pytest.fixture(scope="session")
def statistics():
    """Settings of the statistics, small."""
    return {"min_occurrences": 5, "n_permutations": 199, "n_bootstrap": 199, "seed": 7}


@pytest.fixture
def write_latents(tmp_path):
    """Write a planted table and return its path."""

    def write(table, name="occurrence_latents.parquet"):
        path = tmp_path / name
        table.write_parquet(path, row_group_size=50)
        return path

    return write
