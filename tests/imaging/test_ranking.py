import json

import polars as pl
import pytest

from medsae.imaging.ranking import (
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
        M_config_fixed=pl.col("M_config"), restricted_mean_n=pl.col("mean_n_features")
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


def write_configuration(folder, encoder, sae, m, values, sizes):
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
    recovery = pl.concat([curve("a", values), curve("b", values)])
    recovery = recovery.with_columns(
        base_model=pl.lit(encoder), sae_config=pl.lit(sae),
        n_available=pl.lit(12), features=pl.lit(None), reason=pl.lit(None),
    )  # fmt: skip
    recovery.select(RECOVERY).write_csv(folder / "recovery.csv")
    config = {"n_latents": 12, "k": 4, "options": {"sizes": sizes, "level_k": [2, 4]}}
    (folder / "cfg.json").write_text(json.dumps({"sae": config}))
    (folder / "best_meta.json").write_text(json.dumps({"val_fvu": 0.2}))
    return {
        "base_model": encoder,
        "sae_config": sae,
        "scores": folder / "feature_scores.csv",
        "recovery": folder / "recovery.csv",
        "sae_config_file": folder / "cfg.json",
        "best_meta": folder / "best_meta.json",
    }


def test_the_table_of_known_configurations(tmp_path):
    best, worst = [0.6, 1.0, 1.0], [0.1, 0.5, 0.9]
    configurations = [
        write_configuration(tmp_path, "dino", "D_4_12", 0.5, best, [4, 12]),
        write_configuration(tmp_path, "dino", "D_6_12", 0.2, worst, [6, 12]),
        write_configuration(tmp_path, "dino-random", "D_4_12", 0.1, worst, [4, 12]),
        write_configuration(tmp_path, "dino-random", "D_6_12", 0.1, worst, [6, 12]),
    ]
    ranking = config_ranking(configurations, "val")
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
    assert first["val_fvu"] == 0.2 and first["n_targets"] == 2
