"""The contact sheet's choice of features."""

import polars as pl

from medsae.report.imaging.data import read_table
from medsae.report.imaging.sheets import best_features, draw_contact_sheet


def write(path, header: str, *rows: str):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def chosen(tmp_path, descriptions: tuple[str, ...], samples: tuple[str, ...]) -> pl.DataFrame:
    scores = write(
        tmp_path / "scores.csv",
        "feature_idx,monosemanticity_10,concept",
        "0,,",
        "1,0.4,organ:liver",
        "2,0.9,organ:spleen",
    )
    named = write(tmp_path / "named.csv", "feature_idx,description,rank", *descriptions)
    shown = write(tmp_path / "shown.csv", "feature_idx,role,slice_key", *samples)
    return best_features(
        read_table(scores, ("monosemanticity_10",)),
        read_table(named, ("rank",)),
        pl.read_csv(shown, infer_schema_length=None),
    )


def test_the_most_monosemantic_come_first_and_a_description_once(tmp_path):
    table = chosen(
        tmp_path,
        ("0,spleen,2", "1,liver,1", "2,spleen,1"),
        ("0,shown,a", "1,shown,b", "2,shown,c", "2,shown,d", "2,judged,e"),
    )
    assert table.select("feature_idx", "slices").rows() == [(2, "c;d"), (1, "b")]


def test_where_nothing_could_be_named_the_sheet_says_so(tmp_path):
    table = chosen(tmp_path, (), ())
    assert table.is_empty()
    assert draw_contact_sheet(table, None, pl.DataFrame({"slice_key": []}), "tiny").texts
