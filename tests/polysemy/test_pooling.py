"""The code of an occurrence is its tokens' codes, pooled as asked."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsae.io import UserError
from medsae.polysemy.pooling import CODE, Pooling, pool_occurrences


def write(path: Path, codes: list[dict[int, float]]) -> Path:
    """A shard whose tokens have these codes; normalised values are a tenth of the values."""
    ordered = [sorted(code.items(), key=lambda item: (-item[1], item[0])) for code in codes]
    pl.DataFrame(
        {
            "latent_ids": [[latent for latent, _ in code] for code in ordered],
            "z_values": [[z for _, z in code] for code in ordered],
            "z_values_norm": [[z / 10 for _, z in code] for code in ordered],
        },
        schema=CODE,
    ).write_parquet(path, row_group_size=2)
    return path


def occurrences(*ranges: tuple[str, int, int]) -> pl.DataFrame:
    rows = [(i, shard, start, end) for i, (shard, start, end) in enumerate(ranges)]
    schema = {
        "occurrence_id": pl.UInt32,
        "shard": pl.String,
        "row_start": pl.UInt64,
        "row_end": pl.UInt64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


PLANTED = [{1: 2.0, 2: 1.0}, {2: 4.0, 3: 1.0}, {}]


@pytest.mark.parametrize(
    ("pooling", "ids", "values"),
    [
        ("last", [2, 3], [4.0, 1.0]),
        ("mean", [2, 1, 3], [2.5, 1.0, 0.5]),
        ("max", [2, 1, 3], [4.0, 2.0, 1.0]),
    ],
)
def test_planted_codes_are_pooled(tmp_path: Path, pooling: Pooling, ids: list, values: list):
    shard = write(tmp_path / "train-00000.parquet", PLANTED)
    (row,) = pool_occurrences(occurrences(("train-00000", 0, 2)), [shard], pooling, 8).to_dicts()
    assert row["latent_ids"] == ids
    assert row["z_values"] == values
    assert row["z_values_norm"] == pytest.approx([value / 10 for value in values])


def test_an_occurrence_on_which_nothing_fires_has_an_empty_code(tmp_path: Path):
    shard = write(tmp_path / "train-00000.parquet", PLANTED)
    pooled = pool_occurrences(occurrences(("train-00000", 1, 3)), [shard], "last", 8)
    assert pooled["latent_ids"].to_list() == pooled["z_values"].to_list() == [[]]
    assert pooled.schema["latent_ids"] == pl.List(pl.Int32)


def test_the_k_largest_are_kept(tmp_path: Path):
    shard = write(tmp_path / "train-00000.parquet", [{i: float(i) for i in range(1, 30)}])
    pooled = pool_occurrences(occurrences(("train-00000", 0, 1)), [shard], "mean", 5)
    assert pooled["latent_ids"].to_list() == [[29, 28, 27, 26, 25]]


def test_every_shard_gives_its_own_rows(tmp_path: Path):
    shards = [
        write(tmp_path / "train-00000.parquet", [{1: 1.0}]),
        write(tmp_path / "val-00000.parquet", [{2: 1.0}]),
    ]
    wanted = occurrences(("val-00000", 0, 1), ("train-00000", 0, 1), ("val-00000", 0, 1))
    pooled = pool_occurrences(wanted, shards, "last", 8)
    assert pooled["latent_ids"].to_list() == [[2], [1], [2]]
    with pytest.raises(UserError, match="shard val-00000"):
        pool_occurrences(wanted, shards[:1], "last", 8)


@settings(max_examples=60, deadline=None)
@given(
    codes=st.lists(
        st.dictionaries(st.integers(0, 9), st.floats(0.125, 8, width=16), max_size=5),
        min_size=1,
        max_size=8,
    ),
    data=st.data(),
)
def test_pooling_equals_dense_vectors(tmp_path_factory, codes: list, data: st.DataObject):
    shard = write(tmp_path_factory.mktemp("pool") / "train-00000.parquet", codes)
    start = data.draw(st.integers(0, len(codes) - 1))
    end = data.draw(st.integers(start + 1, len(codes)))
    for pooling in ("last", "mean", "max"):
        pooled = pool_occurrences(occurrences(("train-00000", start, end)), [shard], pooling, 4)
        taken = codes[start:end]
        dense = {}
        for latent in range(10):
            column = [code.get(latent, 0.0) for code in taken]
            dense[latent] = {
                "last": column[-1],
                "mean": sum(column) / len(column),
                "max": max(column),
            }[pooling]
        best = sorted(
            (latent for latent in dense if dense[latent] > 0), key=lambda i: (-dense[i], i)
        )
        assert pooled["latent_ids"].to_list() == [best[:4]]
        assert pooled["z_values"].to_list()[0] == pytest.approx([dense[i] for i in best[:4]])
