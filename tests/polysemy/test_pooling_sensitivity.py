import numpy as np
import polars as pl
import pytest

from medsae.polysemy.columns import POOLING
from medsae.polysemy.jaccard_tables import measure_jaccard
from medsae.polysemy.pooling import pool_occurrences
from medsae.polysemy.pooling_sensitivity import compare_poolings

K = 16


@pytest.fixture(scope="module")
def tokens(plant, tmp_path_factory):
    """Planted occurrences of two tokens: the first token carries the sense, the last does not.

    The term "short" has one token only, which carries its sense.
    """
    table = plant(
        {"lemma": "long", "strength": 0.6, "n_patients": 50},
        {"lemma": "short", "strength": 0.6, "n_patients": 50},
        {"lemma": "rare", "n_patients": 3},
        {"lemma": "control", "kind": "control"},
    )
    rng = np.random.default_rng(0)
    codes, places = [], []
    for lemma, ids, z in table.select("lemma", "latent_ids", "z_values").iter_rows():
        start = len(codes)
        codes.append((ids, z))
        if lemma != "short":
            noise = rng.choice(np.arange(120, 300), K, replace=False).tolist()
            codes.append((noise, z))
        places.append((start, len(codes)))
    topk = pl.DataFrame(
        [{"latent_ids": ids, "z_values": z, "z_values_norm": z} for ids, z in codes],
        schema={
            "latent_ids": pl.List(pl.Int32),
            "z_values": pl.List(pl.Float32),
            "z_values_norm": pl.List(pl.Float32),
        },
    )
    path = tmp_path_factory.mktemp("poolings") / "train-00000.parquet"
    topk.write_parquet(path)
    names = ("row_start", "row_end")
    located = table.drop("latent_ids", "z_values", "z_values_norm", *names).with_columns(
        pl.Series(name, [place[i] for place in places], pl.UInt64) for i, name in enumerate(names)
    )
    return located, [path]


@pytest.fixture(scope="module")
def compared(tokens, statistics):
    return compare_poolings(*tokens, "last", K, 10, statistics)


def test_every_term_has_a_row_per_pooling(compared):
    assert compared.columns == list(POOLING[3:])
    assert compared.select("lemma", "pooling").rows() == [
        (lemma, pooling)
        for lemma in ("long", "rare", "short")
        for pooling in ("last", "max", "mean")
    ]
    assert compared.filter(pl.col("pooling") == "last")["chosen"].all()
    rare = compared.filter(pl.col("lemma") == "rare")
    assert rare["delta"].is_null().all() and rare["reason"].is_not_null().all()


def test_a_sense_that_only_the_first_token_carries_is_lost_to_the_last(compared):
    rows = {r["pooling"]: r for r in compared.filter(pl.col("lemma") == "long").to_dicts()}
    assert rows["last"]["tokens_per_occurrence"] == 2
    assert rows["last"]["delta_low"] < 0.01 < rows["mean"]["delta_low"]
    for pooling in ("mean", "max"):
        row = rows[pooling]
        assert row["change"] == pytest.approx(row["delta"] - rows["last"]["delta"])
        assert row["change_low"] > 0


def test_a_term_of_one_token_is_the_same_under_all(compared):
    short = compared.filter(pl.col("lemma") == "short")
    assert short["delta"].n_unique() == 1
    assert (
        short.select("change", "change_low", "change_high").to_numpy().tolist() == [[0.0] * 3] * 3
    )


def test_delta_is_that_of_the_overlap_table(compared, tokens, statistics, tmp_path):
    located, topk = tokens
    pool_occurrences(located, topk, "mean", K).write_parquet(tmp_path / "latents.parquet")
    terms, _, _ = measure_jaccard(tmp_path / "latents.parquet", [10], statistics)
    expected = dict(terms.filter(pl.col("k") == 10).select("lemma", "delta").iter_rows())
    for lemma, delta in (
        compared.filter(pl.col("pooling") == "mean").select("lemma", "delta").rows()
    ):
        assert delta == pytest.approx(expected[lemma], nan_ok=True)


def test_row_order_does_not_matter(compared, tokens, statistics):
    located, topk = tokens
    shuffled = located.sample(fraction=1, shuffle=True, seed=2)
    assert compared.equals(compare_poolings(shuffled, topk, "last", K, 10, statistics))
