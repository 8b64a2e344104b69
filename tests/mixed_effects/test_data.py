"""Which Δ of ``jaccard_at_k.csv`` the planned models of overlap are about."""

import polars as pl
import pytest

from medsae.mixed_effects import overlap_table
from medsae.polysemy.columns import JACCARD_AT_K


@pytest.fixture
def written(tmp_path):
    def write(name, rows):
        """A table of rows (lemma, kind, k, delta) of SAE ``name``."""
        table = pl.DataFrame(rows, ("lemma", "kind", "k", "delta"), orient="row").with_columns(
            model=pl.lit("m"), layer=pl.lit(3), sae=pl.lit(name)
        )
        missing = (pl.lit(None).alias(n) for n in JACCARD_AT_K if n not in table.columns)
        path = tmp_path / f"{name}.csv"
        table.with_columns(missing).select(JACCARD_AT_K).write_csv(path)
        return path

    return write


def read(*paths):
    table = overlap_table(paths).sort("sae", "lemma")
    return table.select("sae", "lemma", "jaccard", "jaccard_at_10").rows()


def test_delta_of_all_latents_is_that_of_the_largest_k_of_each_table(written):
    wide = [("a", "polysemous", k, k / 1000) for k in (10, 20, 50, 128)]
    narrow = [("a", "polysemous", k, k / 1000) for k in (10, 20, 32)]
    assert read(written("wide", wide), written("narrow", narrow)) == [
        ("narrow", "a", 0.032, 0.010),
        ("wide", "a", 0.128, 0.010),
    ]


def test_ten_are_all_latents_where_there_are_no_more(written):
    rows = [("a", "polysemous", k, k / 1000) for k in (4, 8)]
    assert read(written("few", rows)) == [("few", "a", 0.008, 0.008)]


def test_a_k_of_ten_that_was_not_asked_for_is_not_another(written):
    rows = [("a", "polysemous", k, k / 1000) for k in (5, 20, 32)]
    assert read(written("other", rows)) == [("other", "a", 0.032, None)]


def test_only_ambiguous_terms_have_rows(written):
    kinds = {"c": "control", "different lemmas": "floor", "a": "polysemous", "b": "polysemous"}
    rows = [
        (lemma, kind, k, None if lemma == "b" else 0.2)
        for k in (10, 32)
        for lemma, kind in kinds.items()
    ]
    assert read(written("one", rows)) == [("one", "a", 0.2, 0.2), ("one", "b", None, None)]


def test_an_empty_table_is_read(tmp_path):
    path = tmp_path / "jaccard_at_k.csv"
    path.write_text(",".join(JACCARD_AT_K) + "\n")
    table = overlap_table([path])
    assert table.is_empty()
    types = {"layer": pl.String, "jaccard": pl.Float64, "jaccard_at_10": pl.Float64}
    assert types.items() <= table.schema.items()
