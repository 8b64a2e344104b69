"""The headline numbers of one SAE, machine-readable: ``metrics/summary.json``.

Every estimate is an object {"value", "low", "high"} with its 95% interval; null where it
could not be estimated.
"""

from typing import Any

import polars as pl

from medsae.polysemy.ablation_summary import ALL_TERMS
from medsae.report.means import mean_over_terms
from medsae.report.tables import ALPHA, at_headline_k, beyond_chance, number, significant

Estimate = dict[str, float | None]


def estimate(row: dict[str, Any], name: str) -> Estimate | None:
    """``name`` and its interval in ``row`` as an estimate; None where it is null."""
    if row.get(name) is None:
        return None
    return {"value": row[name], "low": row.get(f"{name}_low"), "high": row.get(f"{name}_high")}


def _mean(values: pl.Series) -> Estimate | None:
    return estimate(mean_over_terms("mean", values), "mean")


def summarise_overlap(jaccard: pl.DataFrame) -> dict[str, Any]:
    """Terms separated, their mean Δ, and how far random cuts of terms with one meaning go.

    ``chance_delta_95``: median over terms of the size of Δ that 95% of the cuts stay below. A
    separated term without controls is neither beyond nor within chance.
    """
    at_k, k = at_headline_k(jaccard)
    kinds = {
        kind: at_k.filter(pl.col("kind") == kind) for kind in ("polysemous", "control", "floor")
    }
    terms = kinds["polysemous"]
    estimated = terms.filter(pl.col("delta").is_not_null())
    found = terms.filter(significant("delta"))
    separated = found["lemma"].sort().to_list()
    untestable = estimated.filter(pl.col("pvalue").is_null())["lemma"].sort().to_list()
    chance = estimated["chance_delta_95"].cast(pl.Float64).median()
    floor = kinds["floor"].to_dicts()
    return {
        "k": k,
        "n_terms": terms.height,
        "n_terms_estimated": estimated.height,
        "n_terms_separated": len(separated),
        "terms_separated": separated,
        "n_terms_separated_beyond_chance": found.filter(beyond_chance()).height,
        "terms_separated_within_chance": found.filter(~beyond_chance())["lemma"].sort().to_list(),
        "terms_not_shown": sorted(set(estimated["lemma"]) - set(separated) - set(untestable)),
        "terms_not_testable": untestable,
        "terms_without_enough_data": sorted(set(terms["lemma"]) - set(estimated["lemma"])),
        "delta": _mean(terms["delta"]),
        "n_controls": int(kinds["control"]["within"].is_not_null().sum()),
        "chance_delta_95": None if chance is None else number(chance),
        "control_overlap": _mean(kinds["control"]["within"]),
        "overlap_of_different_terms": estimate(floor[0], "cross") if floor else None,
    }


def summarise_pooling(poolings: pl.DataFrame) -> dict[str, Any]:
    """Mean Δ over terms under each way of pooling a term's tokens."""
    chosen = poolings.filter("chosen")["pooling"].unique().to_list()
    return {
        "chosen": chosen[0] if chosen else None,
        "delta": {
            name: _mean(poolings.filter(pl.col("pooling") == name)["delta"])
            for name in poolings["pooling"].unique().sort().to_list()
        },
    }


def summarise_linked(linked: pl.DataFrame) -> dict[str, Any]:
    """Latents discovered on one half of the patients and confirmed on the other.

    ``smallest_q`` is what a single latent could have reached with the permutations made;
    ``terms_not_testable``: terms none of whose senses could be tested, and why.
    """
    confirmed = linked.filter(pl.col("confirmed").fill_null(False))
    return {
        "n_discovered": int(number(linked["discovered"].sum())),
        "n_confirmed": confirmed.height,
        "n_senses_with_confirmed": confirmed.select("lemma", "sense").n_unique(),
        "n_tests": linked["n_tests"][0] if linked.height else None,
        "smallest_q": linked["smallest_q"][0] if linked.height else None,
        "terms_not_testable": dict(
            linked.group_by("lemma")
            .agg(pl.col("pvalue").is_null().all().alias("untestable"), pl.col("reason").first())
            .filter("untestable")
            .sort("lemma")
            .select("lemma", "reason")
            .iter_rows()
        ),
        "n_not_confirmable": linked.filter(
            pl.col("discovered").fill_null(False) & pl.col("reason").is_not_null()
        ).height,
    }


def summarise_probes(probes: pl.DataFrame) -> dict[str, Any]:
    """Mean AUROC over terms and how many are above their shuffled-label null.

    Each term counts once, whatever the number of its senses: its row has no sense.
    """
    tested = probes.filter(pl.col("sense").is_null() & pl.col("auroc").is_not_null())
    return {
        "n_terms": tested.height,
        "n_terms_above_chance": tested.filter(pl.col("qvalue") < ALPHA).height,
        "auroc": _mean(tested["auroc"]),
    }


def summarise_ablation(summary: pl.DataFrame) -> dict[str, Any]:
    """Senses whose loss rises more than under the controls, and the rises over all terms.

    ``n_senses_able_…``: those that could have, alone, if all their patients agreed;
    ``fewest_patients`` that the interval of a sense rests on.
    """
    tested = summary.filter(pl.col("sense").is_not_null() & pl.col("contrast").is_not_null())
    of_all = summary.filter(pl.col("lemma") == ALL_TERMS).to_dicts()
    overall = of_all[0] if of_all else {}
    return {
        "n_senses": tested.height,
        "n_senses_above_random_latent": tested.filter(
            significant("contrast", "qvalue_contrast")
        ).height,
        "n_senses_able_above_random_latent": tested.filter(
            pl.col("smallest_q_contrast") < ALPHA
        ).height,
        "n_senses_compared": int(tested["did"].is_not_null().sum()),
        "n_senses_above_other_sense": tested.filter(significant("did")).height,
        "n_senses_able_above_other_sense": tested.filter(pl.col("smallest_q") < ALPHA).height,
        "fewest_patients": tested["n_patients_on"].min(),
        "linked_minus_random_nats": estimate(overall, "contrast"),
        "difference_in_differences_nats": estimate(overall, "did"),
        "n_patients": overall.get("n_patients"),
        "n_latents_compared": overall.get("n_latents_compared"),
        "activation_ratio": {
            "own_sense": overall.get("activation_ratio_on"),
            "other_senses": overall.get("activation_ratio_off"),
        },
        "activation_own_over_other_senses": estimate(overall, "activation_on_over_off"),
        "reason": overall.get("reason"),
    }


def summarise_faithfulness(faithfulness: pl.DataFrame) -> dict[str, Any]:
    """Loss recovered, FVU in raw units, and the losses behind them."""
    (row,) = faithfulness.to_dicts()
    names = ("loss_recovered", "fvu", "ce_clean", "ce_reconstructed", "ce_mean_ablated")
    return {name: estimate(row, name) for name in names} | {
        "n_tokens": row["n_tokens"],
        "check": row["check"],
        "reason": row["reason"],
    }


def dead_fraction(calibration: pl.DataFrame) -> float:
    """Share of latents that never fired on the training notes."""
    return number((calibration["firing_count"] == 0).mean())


def summarise_retrieval(sweep: pl.DataFrame, baselines: pl.DataFrame) -> dict[str, Any]:
    """Gain in P@1 at the settings chosen on development patients, and P@1 of every method."""
    chosen = sweep.filter(pl.col("chosen")).to_dicts()
    if not chosen:
        reason = sweep["reason"][0] if "reason" in sweep.columns and sweep.height else None
        return {"n_queries": 0, "delta_p_at_1": None, "p_at_1": {}, "reason": reason}
    (row,) = chosen
    gain = {"value": row["delta_P@1_mean"]}
    methods = baselines.filter(pl.col("word") == "all").to_dicts()
    return {
        "n_queries": row["n"],
        "n_patients": row["n_patients"],
        "k": row["k"],
        "n_anchor": row["n_anchor"],
        "delta_p_at_1": gain | {"low": row["delta_P@1_low"], "high": row["delta_P@1_high"]},
        "p_adjusted": row["p_adjusted"],
        "p_at_1": {method["method"]: estimate(method, "p_at_1") for method in methods},
        "p_at_1_minus_all_latents": {
            method["method"]: estimate(method, "delta_p_at_1") for method in methods
        },
    }
