"""Which SAE configuration is best for an encoder?

Published: rank M_config (descending) and the mean number of features that reach 50 … 100% of
the dense AUROC, over thresholds and targets (ascending); average the two ranks.

Beside it: M of as many features as the smallest dictionary has; recovery above chance, with
goals never reached counted at the largest number tried (a lower bound) instead of left out;
the same targets for every configuration of an encoder, or no ranking.

An SAE that collapsed takes no part: constant features can look monosemantic. Validation scans
choose; the numbers whose names begin with ``test_`` are of scans that had no say.
"""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import rankdata

from medsae.imaging.artifacts import level_sizes, sae_settings
from medsae.imaging.columns import CHOOSING, HELD_OUT, SPLITS
from medsae.imaging.monosemanticity import configuration_scores
from medsae.imaging.quality import collapse, read_quality
from medsae.imaging.recovery import first_sizes
from medsae.imaging.result_columns import CONFIG_RANKING

AT = 10
RANKS = {
    "rank_mono": pl.Float64,
    "rank_perf": pl.Float64,
    "rank_combined": pl.Float64,
    "final_rank": pl.Int64,
    "build_rank_mono": pl.Float64,
    "build_rank_perf": pl.Float64,
    "build_final_rank": pl.Int64,
}


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
    final rank. A ``collapsed`` configuration has no rank and counts in none. An encoder for
    which any other configuration lacks a value gets no rank of that kind.
    """
    parts = []
    for group in table.partition_by("base_model", "collapsed", maintain_order=True):
        if group["collapsed"][0]:
            parts.append(
                group.with_columns(pl.lit(None, kind).alias(n) for n, kind in RANKS.items())
            )
            continue
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
    return pl.concat([part.select(parts[0].columns) for part in parts]).sort(
        "base_model", "final_rank", "build_final_rank", "sae_config", nulls_last=True
    )


def chosen_configurations(ranking: pl.DataFrame) -> dict[str, str]:
    """The configuration of each encoder that is looked at more closely: base_model → sae_config.

    Collapsed ones last. The first by build_final_rank; where there is none, by final_rank; else
    by build_rank_perf; else by val_fvu.
    """
    order = ranking.sort(
        ["collapsed", "build_final_rank", "final_rank", "build_rank_perf", "val_fvu", "sae_config"],
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


def config_ranking(configurations: list[dict[str, Any]]) -> pl.DataFrame:
    """``config_ranking.csv``.

    Each configuration: base_model, sae_config, control and control_of (see
    ``medsae.config``'s ImageEncoder), and the paths scores (``feature_scores.csv``), recovery,
    sae_config_file (``cfg.json``) and quality (``sae_quality.csv``).
    """
    read = [_read(entry) for entry in configurations]
    rows = []
    for entry in read:
        peers = [other for other in read if other["base_model"] == entry["base_model"]]
        able = [peer for peer in peers if not peer["collapse"]]
        targets = common_targets([peer["recovery"] for peer in able])
        size = min((peer["n_scored"] for peer in able), default=0)
        copied = ("base_model", "sae_config", "dict_sizes", "top_k_values", "control", "control_of")
        row = {name: entry[name] for name in copied} | entry["quality"]
        scores = configuration_scores(entry["scores"], size or None)
        row |= {name: scores[name] for name in scores if name in CONFIG_RANKING}
        row |= performance(entry["recovery"], targets)
        held_out = common_targets([peer["held_out"] for peer in able])
        found = performance(entry["held_out"], held_out)
        row |= {f"test_{name}": found[name] for name in ("recovery_at_10", "n_targets")}
        row["collapsed"] = entry["collapse"] is not None
        row["reason"] = entry["collapse"] or _reason(targets, size)
        rows.append(row)
    table = pl.DataFrame(rows, infer_schema_length=None)
    twins = {
        (row["control_of"], row["sae_config"]): row
        for row in rows
        if row["control_of"] and not row["collapsed"]
    }
    for name in ("recovery_at_10", "M_config"):
        values = [twins.get((row["base_model"], row["sae_config"]), {}).get(name) for row in rows]
        table = table.with_columns(pl.Series(f"random_{name}", values, dtype=pl.Float64))
    return rank_configurations(table).select(CONFIG_RANKING)


def _reason(targets: list[str], size: int) -> str | None:
    if not targets:
        return f"no target can be recovered above chance on {CHOOSING} by every configuration"
    return None if size else "a configuration has no feature that could be scored"


def _read(entry: dict[str, Any]) -> dict[str, Any]:
    scores = pl.read_csv(entry["scores"], infer_schema_length=None)
    numbers = [n for n in scores.columns if n not in {"shared_concepts", "concept", "reason"}]
    scores = scores.with_columns(pl.col(name).cast(pl.Float64) for name in numbers)
    recovery = pl.read_csv(entry["recovery"], infer_schema_length=None)
    numeric = ("auroc", "auroc_dense", "recovery", "recovery_above_chance", "n_features")
    recovery = recovery.with_columns(pl.col(name).cast(pl.Float64) for name in numeric)
    config = sae_settings(entry["sae_config_file"])
    quality = read_quality(entry["quality"])
    options = config.get("options") or {}
    k = options.get("level_k") or [config["k"]]
    return {
        "base_model": entry["base_model"],
        "sae_config": entry["sae_config"],
        "dict_sizes": "_".join(map(str, level_sizes(entry["sae_config_file"]))),
        "top_k_values": "_".join(map(str, k)),
        "control": entry["control"],
        "control_of": entry["control_of"],
        "collapse": collapse(quality),
        "quality": {
            f"{split}_{name}": quality.get(split, {}).get(name)
            for name in ("fvu", "l0")
            for split in SPLITS
        },
        "scores": scores,
        "n_scored": int(scores["monosemanticity_10"].is_not_null().sum()),
        "recovery": recovery.filter(pl.col("split") == CHOOSING),
        "held_out": recovery.filter(pl.col("split") == HELD_OUT),
    }
