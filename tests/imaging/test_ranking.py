import json

import polars as pl
import pytest

from medsae.imaging.quality import QUALITY
from medsae.imaging.ranking import (
    RANKS,
    chosen_configurations,
    common_targets,
    config_ranking,
    performance,
    rank_configurations,
)
from medsae.imaging.result_columns import CONFIG_RANKING, FEATURE_SCORES, RECOVERY

PUBLISHED = [
    "base_model", "sae_config", "dict_sizes", "top_k_values", "M_config", "mean_n_features",
    "n_targets", "rank_mono", "rank_perf", "rank_combined", "final_rank",
]  # fmt: skip


def table(rows):
    names = ("base_model", "sae_config", "M_config", "mean_n_features")
    frame = pl.DataFrame(rows, schema=names, orient="row")
    return frame.with_columns(
        M_config_fixed=pl.col("M_config"),
        restricted_mean_n=pl.col("mean_n_features"),
        collapsed=pl.lit(False),
        val_fvu=pl.lit(0.5),
    )


def test_ranks_have_known_answers():
    ranked = rank_configurations(
        table(
            [
                ("e", "a", 0.50, 10.0),
                ("e", "b", 0.40, 5.0),
                ("e", "c", 0.30, 20.0),
                ("f", "a", 0.10, 50.0),
            ]
        )
    )
    rows = {(r["base_model"], r["sae_config"]): r for r in ranked.iter_rows(named=True)}
    assert [rows["e", s]["rank_mono"] for s in "abc"] == [1, 2, 3]
    assert [rows["e", s]["rank_perf"] for s in "abc"] == [2, 1, 3]
    assert [rows["e", s]["rank_combined"] for s in "abc"] == [1.5, 1.5, 3]
    assert [rows["e", s]["final_rank"] for s in "abc"] == [1, 1, 3]
    assert rows["f", "a"]["final_rank"] == 1


def test_equal_values_share_the_mean_of_their_ranks():
    ranked = rank_configurations(
        table([("e", s, m, 1.0) for s, m in zip("abc", (0.2, 0.2, 0.1), strict=True)])
    )
    assert ranked.sort("sae_config")["rank_mono"].to_list() == [1.5, 1.5, 3]
    assert ranked["rank_perf"].to_list() == [2, 2, 2]


def test_a_missing_value_leaves_the_encoder_unranked():
    ranked = rank_configurations(
        table([("e", "a", 0.5, 10.0), ("e", "b", 0.4, None), ("f", "a", 0.5, 1.0)])
    )
    assert ranked.filter(pl.col("base_model") == "e")["final_rank"].is_null().all()
    assert ranked.filter(pl.col("base_model") == "f")["final_rank"].to_list() == [1]


def curve(target, values, split="val"):
    return pl.DataFrame(
        {
            "target": target,
            "split": split,
            "n_features": [1.0, 10.0, 100.0],
            "auroc": [0.5 + v * 0.4 for v in values],
            "auroc_dense": 0.9,
            "recovery": [(0.5 + v * 0.4) / 0.9 for v in values],
            "recovery_above_chance": values,
        }
    )


def test_goals_never_reached_count_instead_of_vanishing():
    # half of what is above chance at 1 feature, all of it at 10; and never more than a tenth
    reached, never = curve("a", [0.5, 1.0, 1.0]), curve("b", [0.1, 0.1, 0.1])
    good = performance(reached, ["a"])
    both = performance(pl.concat([reached, never]), ["a", "b"])
    assert good["restricted_mean_n"] == pytest.approx((1 + 5 * 10) / 6)
    assert good["n_censored"] == 0 and good["recovery_at_10"] == 1
    assert both["restricted_mean_n"] == pytest.approx(((1 + 5 * 10) + 6 * 100) / 12)
    assert both["n_censored"] == 6 and both["n_goals"] == 12
    # published: b reaches 50 and 60% of .9 at once by being at chance, and no more
    assert both["mean_n_features"] < both["restricted_mean_n"]


def test_only_targets_that_all_configurations_estimate_count():
    first = pl.concat([curve("a", [0.5, 1, 1.0]), curve("b", [0.5, 1, 1.0])])
    second = pl.concat([curve("a", [0.5, 1, 1.0]), curve("c", [0.5, 1, 1.0])])
    assert common_targets([first, second]) == ["a"]
    assert common_targets([first, curve("z", [0.1, 0.2, 0.3])]) == []


def write_configuration(
    folder, encoder, sae, m, values, sizes, held_out=(0.0, 0.3, 0.4), of=None, fvu=0.2, dead=0.1
):
    folder = folder / encoder / sae
    folder.mkdir(parents=True)
    scores = pl.DataFrame(
        {name: pl.Series([None] * 12, dtype=pl.Float64) for name in FEATURE_SCORES}
    ).with_columns(
        feature_idx=pl.int_range(12),
        monosemanticity_10=pl.Series([m] * 12),
        monosemanticity_50=pl.Series([m / 2] * 12),
        n_nonzero_activations=pl.lit(5),
    )
    scores.write_csv(folder / "feature_scores.csv")
    chosen_by = [curve("a", values), curve("b", values)]
    recovery = pl.concat([*chosen_by, curve("a", list(held_out), "test")])
    recovery = recovery.with_columns(
        base_model=pl.lit(encoder), sae_config=pl.lit(sae),
        n_available=pl.lit(12), features=pl.lit(None), reason=pl.lit(None),
        control=pl.lit(None), control_of=pl.lit(None),
    )  # fmt: skip
    recovery.select(RECOVERY).write_csv(folder / "recovery.csv")
    config = {"n_latents": 12, "k": 4, "options": {"sizes": sizes, "level_k": [2, 4]}}
    (folder / "cfg.json").write_text(json.dumps({"sae": config}))
    quality = [("train", 0.1, dead), ("val", fvu, 0.5), ("test", 0.4, 0.5)]
    pl.DataFrame(
        [(split, 9, value, value, 4.0, share, 6) for split, value, share in quality],
        schema=QUALITY,
        orient="row",
    ).write_csv(folder / "sae_quality.csv")
    return {
        "control": "random weights" if of else None,
        "control_of": of,
        "quality": folder / "sae_quality.csv",
        "base_model": encoder,
        "sae_config": sae,
        "scores": folder / "feature_scores.csv",
        "recovery": folder / "recovery.csv",
        "sae_config_file": folder / "cfg.json",
    }


def test_the_table_of_known_configurations(tmp_path):
    best, worst = [0.6, 1.0, 1.0], [0.1, 0.5, 0.9]
    configurations = [
        write_configuration(tmp_path, "dino", "D_4_12", 0.5, best, [4, 12]),
        write_configuration(tmp_path, "dino", "D_6_12", 0.2, worst, [6, 12]),
        write_configuration(tmp_path, "twin", "D_4_12", 0.1, worst, [4, 12], of="dino"),
        write_configuration(tmp_path, "twin", "D_6_12", 0.1, worst, [6, 12], of="dino"),
    ]
    ranking = config_ranking(configurations)
    assert tuple(ranking.columns) == CONFIG_RANKING
    assert ranking.columns[: len(PUBLISHED)] == PUBLISHED
    first = ranking.row(0, named=True)
    assert (first["sae_config"], first["dict_sizes"], first["top_k_values"]) == (
        "D_4_12",
        "4_12",
        "2_4",
    )
    assert first["final_rank"] == first["build_final_rank"] == 1
    assert first["M_config"] == pytest.approx(0.5) and first["breadth"] == pytest.approx(0.5)
    assert first["random_recovery_at_10"] == pytest.approx(0.5)
    assert first["random_M_config"] == pytest.approx(0.1)
    assert (first["train_fvu"], first["val_fvu"], first["test_fvu"]) == (0.1, 0.2, 0.4)
    assert first["val_l0"] == 4 and first["n_targets"] == 2
    # validation chose; what is reported is of the test scans
    assert first["recovery_at_10"] == 1 and first["test_recovery_at_10"] == pytest.approx(0.3)
    assert first["test_n_targets"] == 1 and first["control"] is None
    marks = ranking.filter(pl.col("control").is_not_null())
    assert set(marks["base_model"]) == {"twin"} and set(marks["control_of"]) == {"dino"}


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [({"fvu": 1.3}, "FVU 1.30"), ({"dead": 0.99}, "99% of its latents fire on no training slice")],
)
def test_a_collapsed_sae_does_not_rank_and_says_why(tmp_path, spoilt, reason):
    best, worst = [0.6, 1.0, 1.0], [0.1, 0.5, 0.9]
    ranking = config_ranking(
        [
            write_configuration(tmp_path, "dino", "D_4_12", 0.9, best, [4, 12], **spoilt),
            write_configuration(tmp_path, "dino", "D_6_12", 0.2, worst, [6, 12]),
        ]
    )
    rows = {row["sae_config"]: row for row in ranking.iter_rows(named=True)}
    collapsed = rows["D_4_12"]
    assert collapsed["collapsed"] and collapsed["reason"].startswith("collapsed")
    assert reason in collapsed["reason"]
    assert all(collapsed[name] is None for name in RANKS)
    assert rows["D_6_12"]["final_rank"] == rows["D_6_12"]["build_final_rank"] == 1
    assert chosen_configurations(ranking) == {"dino": "D_6_12"}


def test_a_collapsed_control_is_no_measure(tmp_path):
    best, worst = [0.6, 1.0, 1.0], [0.1, 0.5, 0.9]
    ranking = config_ranking(
        [
            write_configuration(tmp_path, "dino", "a", 0.5, best, [4, 12]),
            write_configuration(tmp_path, "dino", "b", 0.2, worst, [6, 12]),
            write_configuration(tmp_path, "twin", "a", 0.9, best, [4, 12], of="dino", fvu=1.3),
            write_configuration(tmp_path, "twin", "b", 0.1, worst, [6, 12], of="dino"),
        ]
    )
    rows = {(row["base_model"], row["sae_config"]): row for row in ranking.iter_rows(named=True)}
    for name in ("random_recovery_at_10", "random_M_config"):
        assert rows["dino", "a"][name] is None and rows["dino", "b"][name] is not None


def test_where_all_collapsed_one_is_shown_and_none_ranks(tmp_path):
    configurations = [
        write_configuration(tmp_path, "e", name, 0.5, [0.1, 0.5, 0.9], [4, 12], fvu=fvu)
        for name, fvu in (("a", 3.0), ("b", 1.5))
    ]
    ranking = config_ranking(configurations)
    assert ranking["final_rank"].is_null().all() and ranking["collapsed"].all()
    assert chosen_configurations(ranking) == {"e": "b"}
