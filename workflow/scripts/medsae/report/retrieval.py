"""Finding other occurrences of the same sense: re-ranking against its baselines."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medsae.report.marks import annotate, intervals, limits, row_labels, stripes
from medsae.report.phrases import estimated
from medsae.report.style import CONTROL, WITHIN, grid, headline, sentence_figure
from medsae.report.tables import ALPHA, interval_columns

CHOSEN = "#E3EDF4"  # shade behind the k chosen on development patients
METHODS = {
    "rerank": "re-ranked without the largest latents",
    "full": "all latents (stage 1)",
    "without_anchors": "without the largest latents",
    "without_random": "without random latents",
    "raw_residual": "hidden state",
    "raw_residual_centred": "hidden state, centred",
    "tfidf_context": "words around (TF-IDF)",
    "tfidf_left_context": "words before (TF-IDF)",
    "majority_sense": "majority sense",
    "random": "random order",
}
METRICS = {
    "p_at_1": "P@1",
    "p_at_3": "P@3",
    "p_at_5": "P@5",
    "p_at_10": "P@10",
    "mrr": "reciprocal rank (MRR)",
    "map": "average precision (MAP)",
}


def draw_retrieval(sweep: pl.DataFrame, baselines: pl.DataFrame, where: str) -> Figure:
    """Every method and metric at the left, the gain from re-ranking over the k sweep at the right.

    ``sweep`` is ``exp_a_k_sweep_summary.csv``, ``baselines`` is ``baselines.csv``.
    """
    title = "Retrieving occurrences of the same sense"
    if baselines.is_empty() or sweep.is_empty():
        reason = sweep["reason"][0] if "reason" in sweep.columns and sweep.height else None
        return sentence_figure(title, f"{where}: {reason or 'too few occurrences of any term'}.")
    overall = baselines.filter(pl.col("word") == "all")
    methods = overall.sort("p_at_1", descending=True, nulls_last=True)
    figure, ((bars, gain), (metrics, gain_map)) = grid(
        2, 2, 2.6, left_in=2.9, right_in=0.3, gap_in=(0.85, 0.95)
    )
    gains = sweep.filter(pl.col("chosen")).row(0, named=True)
    change = {
        "value": gains["delta_P@1_mean"],
        "low": gains["delta_P@1_low"],
        "high": gains["delta_P@1_high"],
    }
    headline(
        figure,
        f"Retrieving the same sense: re-ranking changes P@1 by {estimated(change, signed=True)}",
        f"{where}. {gains['n']:,} occurrences in test patients look for their sense among the same "
        "term in other patients.",
    )
    rows = list(range(methods.height))
    ours = methods["method"] == "rerank"
    values = interval_columns(methods, "p_at_1")
    for chosen, color in ((ours.to_numpy(), WITHIN), (~ours.to_numpy(), CONTROL)):
        picked = [row for row, keep in zip(rows, chosen, strict=True) if keep]
        intervals(bars, picked, *values[:, chosen], color=color)
    row_labels(bars, rows, [METHODS.get(method, method) for method in methods["method"]])
    stripes(bars, rows)
    for row, value in zip(rows, methods["p_at_1"], strict=True):
        annotate(bars, 1.02, row, "" if value is None else f"{value:.3f}")
    limits(bars, len(rows))
    bars.set_xlabel("P@1: first hit has the same sense")
    _draw_metrics(metrics, overall)
    shown = sweep.sort("k")
    tested = (shown["p_adjusted"] < ALPHA).fill_null(False).to_numpy()
    _draw_sweep(gain, shown, "P@1", tested)
    # MAP is not tested: a point is filled where its interval excludes zero
    excludes = (pl.col("delta_MAP_low") > 0) | (pl.col("delta_MAP_high") < 0)
    clear = shown.select(excludes.fill_null(False)).to_series().to_numpy()
    _draw_sweep(gain_map, shown, "MAP", clear)
    return figure


def _draw_metrics(axis: Axes, overall: pl.DataFrame) -> None:
    """All metrics before and after re-ranking."""
    rows = list(range(len(METRICS)))
    for method, color, shift in (("full", CONTROL, -0.14), ("rerank", WITHIN, 0.14)):
        part = overall.filter(pl.col("method") == method)
        values = [interval_columns(part, name)[:, 0] for name in METRICS if part.height]
        places = [row + shift for row in rows][: len(values)]
        if values:
            intervals(axis, places, *np.array(values).T, color=color)
    row_labels(axis, rows, list(METRICS.values()))
    stripes(axis, rows)
    limits(axis, len(rows))
    axis.set_xlabel("re-ranked (blue) and all latents (grey)")


def _draw_sweep(gain: Axes, shown: pl.DataFrame, metric: str, clear: NDArray[np.bool_]) -> None:
    positions = list(range(shown.height))
    low, high = shown[f"delta_{metric}_low"], shown[f"delta_{metric}_high"]
    chosen_at = shown["chosen"].to_list().index(True)
    gain.axvspan(chosen_at - 0.4, chosen_at + 0.4, color=CHOSEN, zorder=0)
    gain.vlines(positions, low, high, color=WITHIN, lw=1.4)
    for chosen, face in ((clear, WITHIN), (~clear, "white")):
        at = [position for position, keep in zip(positions, chosen, strict=True) if keep]
        gain.plot(
            at, shown[f"delta_{metric}_mean"].filter(pl.Series(chosen)), "o", mfc=face, mec=WITHIN
        )
    gain.axhline(0, color=CONTROL, lw=0.9, ls=(0, (4, 3)))
    gain.set_xticks(positions, [str(k) for k in shown["k"]])
    gain.set_xlabel("k: first hits that are re-ranked")
    gain.set_title(f"gain in {metric} from re-ranking")
