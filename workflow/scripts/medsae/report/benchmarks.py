"""Time and memory of every rule, from the benchmark files Snakemake writes."""

from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from medsae.report.marks import follow, limits, row_labels
from medsae.report.style import CONTROL, MUTED, WITHIN, headline, page, sentence_figure
from medsae.report.tables import number

SCHEMA = {
    "rule": pl.String,
    "n_jobs": pl.UInt32,
    "total_s": pl.Float64,
    "longest_s": pl.Float64,
    "cpu_s": pl.Float64,
    "peak_rss_mb": pl.Float64,
}


def gather_benchmarks(folder: str | Path) -> pl.DataFrame:
    """One row per rule, the slowest first, from ``folder/<rule>/<job>.tsv``.

    Columns: rule, n_jobs, total_s (wall seconds of all jobs), longest_s, cpu_s, peak_rss_mb
    (largest resident memory of any job, MiB; null where a job ended before it was measured).
    """
    frames = [
        pl.read_csv(path, separator="\t", infer_schema=False, null_values=["-", "NA"]).select(
            rule=pl.lit(path.parent.name),
            seconds=pl.col("s").cast(pl.Float64),
            cpu=pl.col("cpu_time").cast(pl.Float64, strict=False),
            rss=pl.col("max_rss").cast(pl.Float64, strict=False),
        )
        for path in sorted(Path(folder).glob("*/*.tsv"))
    ]
    if not frames:
        return pl.DataFrame(schema=SCHEMA)
    jobs = pl.concat(frames)
    return (
        jobs.group_by("rule")
        .agg(
            n_jobs=pl.len(),
            total_s=pl.col("seconds").sum(),
            longest_s=pl.col("seconds").max(),
            cpu_s=pl.col("cpu").sum(),
            peak_rss_mb=pl.col("rss").max(),
        )
        .sort(["total_s", "rule"], descending=[True, False])
        .cast(SCHEMA)  # type: ignore[arg-type]
    )


def draw_benchmarks(table: pl.DataFrame, title: str = "Time and memory of every rule") -> Figure:
    """Bars of wall time and peak memory, one row per rule, from ``gather_benchmarks``."""
    if table.is_empty():
        return sentence_figure(title, "No benchmark file was found.")
    rules = table["rule"].to_list()
    rows = list(range(len(rules)))
    figure, (time, memory) = page(len(rows) * 0.2, ratios=(1, 1))
    total = number(table["total_s"].sum())
    headline(
        figure,
        f"{title}: {_duration(total)} of jobs in all",
        "Left: wall time summed over a rule's jobs (number of jobs in grey). "
        "Right: largest resident memory of one job.",
    )
    seconds = table["total_s"].to_list()
    time.barh(rows, seconds, color=WITHIN, height=0.62)
    peaks = [0.0 if peak is None else peak for peak in table["peak_rss_mb"].to_list()]
    memory.barh(rows, peaks, color=CONTROL, height=0.62)
    for row, (value, jobs, peak) in enumerate(
        zip(seconds, table["n_jobs"], table["peak_rss_mb"], strict=True)
    ):
        time.annotate(
            f"{_duration(value)}  ×{jobs}",
            (value, row),
            (4, 0),
            va="center",
            fontsize=7.5,
            color=MUTED,
            textcoords="offset points",
        )
        memory.annotate(
            "not measured" if peak is None else f"{peak:,.0f}",
            (peak or 0, row),
            (4, 0),
            va="center",
            fontsize=7.5,
            color=MUTED,
            textcoords="offset points",
        )
    row_labels(time, rows, rules)
    follow(memory)
    limits(time, len(rows))
    time.set_xlim(0, max(seconds) * 1.25)
    memory.set_xlim(0, max(peaks) * 1.15 or 1)
    time.set_xlabel("seconds")
    memory.set_xlabel("MiB")
    return figure


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
