"""Which SAE configuration is best for an encoder?

Published: rank M_config (descending) and the mean number of features that reach 50 … 100% of
the dense AUROC, over thresholds and targets (ascending); average the two ranks.

Beside it: M of as many features as the smallest dictionary has; recovery above chance, with
goals never reached counted at the largest number tried (a lower bound) instead of left out;
the same targets for every configuration of an encoder, or no ranking.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import rankdata

from medsae.imaging.artifacts import level_sizes, sae_settings
from medsae.imaging.monosemanticity import configuration_scores
from medsae.imaging.recovery import first_sizes
from medsae.imaging.result_columns import CONFIG_RANKING

AT = 10
RANDOM_SUFFIX = "-random"
"""An encoder's twin with random weights is named after it."""


def performance(recovery: pl.DataFrame, targets: list[str]) -> dict[str, Any]:
    """What a SAE's recovery curves say over ``targets`` (of one judged split).

    ``mean_n_features``: published; goals never reached are left out. ``restricted_mean_n``:
    above chance, goals never reached count as the largest N; ``n_censored`` of ``n_goals``.
    """
    curves = recovery.filter(pl.col("target").is_in(targets) & pl.col("n_features").is_not_null())
    published = first_sizes(curves, "recovery").filter(~pl.col("censored"))
    build = first_sizes(curves, "recovery_above_chance")
    at_ten = curves.filter(pl.col("n_features") == AT)["recovery_above_chance"].mean()
    return {
        "mean_n_features": published["n_features"].mean(),
        "n_targets": len(targets),
        "restricted_mean_n": build["n_features"].mean(),
        "n_censored": int(build["censored"].sum()),
        "n_goals": build.height,
        "recovery_at_10": at_ten,
    }


def common_targets(recoveries: list[pl.DataFrame]) -> list[str]:
    """Targets whose recovery above chance every table estimates, sorted."""
    sets = [
        set(table.filter(pl.col("recovery_above_chance").is_not_null())["target"].unique())
        for table in recoveries
    ]
    return sorted(set.intersection(*sets)) if sets else []


def rank_configurations(table: pl.DataFrame) -> pl.DataFrame:
    """Add ranks within each base_model to one row per configuration; sorted by final_rank.

    Published ranks come from M_config and mean_n_features, build ranks from M_config_fixed
    and restricted_mean_n; equal values share the mean of their ranks, equal means the better
    final rank. An encoder for which any configuration lacks a value gets no rank.
    """
    parts = []
    for group in table.partition_by("base_model", maintain_order=True):
        mono, perf, combined, final = _ranks(group, "M_config", "mean_n_features")
        build_mono, build_perf, _, build_final = _ranks(
            group, "M_config_fixed", "restricted_mean_n"
        )
        parts.append(
            group.with_columns(
                rank_mono=mono,
                rank_perf=perf,
                rank_combined=combined,
                final_rank=final,
                build_rank_mono=build_mono,
                build_rank_perf=build_perf,
                build_final_rank=build_final,
            )
        )
    return pl.concat(parts).sort(
        "base_model", "final_rank", "build_final_rank", "sae_config", nulls_last=True
    )


def chosen_configurations(ranking: pl.DataFrame) -> dict[str, str]:
    """The configuration of each encoder that is looked at more closely: base_model → sae_config.

    The first by build_final_rank; where there is none, by final_rank; else by M_config; else
    by name.
    """
    order = ranking.sort(
        ["build_final_rank", "final_rank", "M_config", "sae_config"],
        descending=[False, False, True, False],
        nulls_last=True,
        maintain_order=True,
    )
    return {
        str(group["base_model"][0]): str(group["sae_config"][0])
        for group in order.partition_by("base_model", maintain_order=True)
    }


def _ranks(
    group: pl.DataFrame, high: str, low: str
) -> tuple[pl.Series, pl.Series, pl.Series, pl.Series]:
    first, second = (group[name].cast(pl.Float64).to_numpy() for name in (high, low))
    mono, perf = _rank(-first), _rank(second)
    combined = (mono + perf) / 2
    final = _rank(combined, "min")
    series = [pl.Series(values).fill_nan(None) for values in (mono, perf, combined)]
    return series[0], series[1], series[2], pl.Series(final).fill_nan(None).cast(pl.Int64)


def _rank(values: NDArray[np.float64], method: str = "average") -> NDArray[np.float64]:
    """Ranks from 1; all NaN if any value is."""
    if np.isnan(values).any():
        return np.full(len(values), np.nan)
    # what differs by rounding only is equal
    return rankdata(np.round(values, 9), method=method).astype(np.float64)


def config_ranking(configurations: list[dict[str, Any]], split: str) -> pl.DataFrame:
    """``config_ranking.csv``.

    Each configuration: base_model, sae_config, and the paths scores (``feature_scores.csv``),
    recovery, sae_config_file (``cfg.json``), best_meta. Recovery on ``split`` decides.
    """
    read = [_read(entry, split) for entry in configurations]
    rows = []
    for entry in read:
        peers = [other for other in read if other["base_model"] == entry["base_model"]]
        targets = common_targets([peer["recovery"] for peer in peers])
        size = min(peer["n_scored"] for peer in peers)
        row = {name: entry[name] for name in ("base_model", "sae_config", "dict_sizes")}
        row |= {"top_k_values": entry["top_k_values"], "val_fvu": entry["val_fvu"]}
        scores = configuration_scores(entry["scores"], size or None)
        row |= {name: scores[name] for name in scores if name in CONFIG_RANKING}
        row |= performance(entry["recovery"], targets)
        row["reason"] = _reason(targets, size, split)
        rows.append(row)
    table = pl.DataFrame(rows, infer_schema_length=None)
    twins = {(row["base_model"], row["sae_config"]): row for row in rows}
    for name in ("recovery_at_10", "M_config"):
        values = [
            twins.get((row["base_model"] + RANDOM_SUFFIX, row["sae_config"]), {}).get(name)
            for row in rows
        ]
        table = table.with_columns(pl.Series(f"random_{name}", values, dtype=pl.Float64))
    return rank_configurations(table).select(CONFIG_RANKING)


def _reason(targets: list[str], size: int, split: str) -> str | None:
    if not targets:
        return f"no target can be recovered above chance on {split} by every configuration"
    return None if size else "a configuration has no feature that could be scored"


def _read(entry: dict[str, Any], split: str) -> dict[str, Any]:
    scores = pl.read_csv(entry["scores"], infer_schema_length=None)
    numbers = [n for n in scores.columns if n not in {"shared_concepts", "concept", "reason"}]
    scores = scores.with_columns(pl.col(name).cast(pl.Float64) for name in numbers)
    recovery = pl.read_csv(entry["recovery"], infer_schema_length=None)
    numeric = ("auroc", "auroc_dense", "recovery", "recovery_above_chance", "n_features")
    recovery = recovery.with_columns(pl.col(name).cast(pl.Float64) for name in numeric)
    config = sae_settings(entry["sae_config_file"])
    meta = json.loads(Path(entry["best_meta"]).read_text(encoding="utf-8"))
    options = config.get("options") or {}
    k = options.get("level_k") or [config["k"]]
    return {
        "base_model": entry["base_model"],
        "sae_config": entry["sae_config"],
        "dict_sizes": "_".join(map(str, level_sizes(entry["sae_config_file"]))),
        "top_k_values": "_".join(map(str, k)),
        "val_fvu": meta.get("val_fvu"),
        "scores": scores,
        "n_scored": int(scores["monosemanticity_10"].is_not_null().sum()),
        "recovery": recovery.filter(pl.col("split") == split),
    }
