"""How many latents are linked to one sense, and the strongest of them."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medsae.report.marks import follow, key, limits, sense_labels, sense_rows, stripes
from medsae.report.style import CROSS, FLOOR, MUTED, WITHIN, headline, page, sentence_figure
from medsae.report.tables import number


def count_linked(linked: pl.DataFrame) -> pl.DataFrame:
    """Per term and sense, from ``sense_linked_latents.csv``, the counts and the strongest latent.

    Columns: lemma, sense, n_occurrences, n_discovered, n_confirmed, and of the
    confirmed latent with the largest rate difference on the confirmation half (null if none)
    latent_id, presence_rate, presence_rate_other.
    """
    confirmed = pl.col("confirmed").fill_null(False)
    strength = pl.col("rate_diff_confirmation").filter(confirmed)
    of_strongest = [
        pl.col(name).filter(confirmed).sort_by(strength).last()
        for name in ("latent_id", "presence_rate", "presence_rate_other")
    ]
    return (
        linked.filter(pl.col("latent_id").is_not_null())
        .sort("lemma", "sense", "latent_id")
        .group_by("lemma", "sense", maintain_order=True)
        .agg(
            pl.col("n_sense_total").first().alias("n_occurrences"),
            pl.col("discovered").fill_null(False).sum().alias("n_discovered"),
            confirmed.sum().alias("n_confirmed"),
            *of_strongest,
        )
    )


def draw_sense_linked(counts: pl.DataFrame, where: str) -> Figure:
    """One row per sense, from ``count_linked``: how many latents, where the strongest fires."""
    title = "Latents linked to one sense"
    if counts.is_empty():
        return sentence_figure(
            title, f"{where}: no latent could be tested, or none fires more at one sense."
        )
    if not counts["n_discovered"].sum():
        return sentence_figure(title, f"{where}: not one latent was found to be linked to a sense.")
    rows = sense_rows(counts)
    figure, (bars, rates) = page((rows[-1] + 1) * 0.2, ratios=(1, 1.15), left_in=2.7, right_in=0.9)
    headline(
        figure,
        f"{title}: {counts['n_confirmed'].sum():,} confirmed of "
        f"{counts['n_discovered'].sum():,} discovered",
        f"{where}. Discovered on one half of the patients, confirmed on the other; false discovery "
        "rate 5% over all tests.",
    )
    bars.barh(rows, counts["n_discovered"], height=0.68, color=FLOOR)
    bars.barh(rows, counts["n_confirmed"], height=0.68, color=WITHIN)
    for row, n, found in zip(rows, counts["n_confirmed"], counts["n_discovered"], strict=True):
        bars.annotate(
            f"{n}", (found, row), (3, 0), textcoords="offset points", va="center", fontsize=7.5
        )
    key(bars, [("s", WITHIN, "confirmed"), ("s", FLOOR, "discovered only")])
    _strongest(rates, rows, counts)
    sense_labels(bars, rows, counts, "n_occurrences")
    follow(rates)
    for axis in (bars, rates):
        stripes(axis, rows)
    limits(bars, rows[-1] + 1)
    bars.set_xlim(0, max(1, number(counts["n_discovered"].max())) * 1.12)
    bars.set_xlabel("latents")
    bars.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    rates.set_xlabel("share of occurrences on which the strongest latent fires")
    return figure


def _strongest(axis: Axes, rows: list[float], counts: pl.DataFrame) -> None:
    own, other = counts["presence_rate"], counts["presence_rate_other"]
    axis.hlines(rows, other.cast(pl.Float64), own.cast(pl.Float64), color=FLOOR, lw=2, zorder=2)
    axis.plot(own, rows, "o", color=WITHIN)
    axis.plot(other, rows, "D", color=CROSS, ms=4.5)
    key(axis, [("o", WITHIN, "own sense"), ("D", CROSS, "other senses")])
    for row, latent in zip(rows, counts["latent_id"], strict=True):
        axis.text(
            1.02,
            row,
            "none" if latent is None else f"#{latent}",
            transform=axis.get_yaxis_transform(),
            fontsize=7.5,
            color=MUTED,
            va="center",
        )
    axis.text(
        1.02, 1.01, "latent", transform=axis.transAxes, fontsize=7.5, color=MUTED, va="bottom"
    )
    axis.set_xlim(-0.03, 1.03)
