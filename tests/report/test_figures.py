"""Every figure can be drawn, says what its table says, and is the same file every time."""

import os
import re
from pathlib import Path

import polars as pl
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from medsae.report.ablation import draw_ablation
from medsae.report.agreement import draw_agreement
from medsae.report.benchmarks import draw_benchmarks, gather_benchmarks
from medsae.report.corpus import count_occurrences, draw_corpus
from medsae.report.entropy import draw_entropy
from medsae.report.faithfulness import draw_faithfulness
from medsae.report.jaccard import draw_jaccard
from medsae.report.layers import compare_places, draw_layers
from medsae.report.mixed_effects import draw_mixed_effects
from medsae.report.mixed_effects_diagnostics import draw_diagnostics
from medsae.report.ner import draw_ner
from medsae.report.pooling import draw_pooling
from medsae.report.probes import draw_probes
from medsae.report.retrieval import draw_retrieval
from medsae.report.sense_linked import count_linked, draw_sense_linked
from medsae.report.style import CUTS, WITHIN, save
from medsae.report.tables import read
from medsae.report.training import draw_training
from medsae.report.training_gain import draw_training_gain

WHERE = "small-lm, layer 10, topk"


def several_places(jaccard: pl.DataFrame) -> pl.DataFrame:
    """The planted table at two layers of the model and, flat, in a random-weights model."""
    names = ("delta", "delta_low", "delta_high")
    return pl.concat(
        [
            jaccard,
            jaccard.with_columns(pl.lit(20).cast(pl.Int64).alias("layer"), pl.col(*names) * 0.6),
            jaccard.with_columns(pl.lit("random-lm").alias("model"), pl.col(*names) * 0.02),
        ]
    )


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> dict[str, Figure]:
    get = request.getfixturevalue
    places = several_places(get("jaccard"))
    return {
        "jaccard": draw_jaccard(get("jaccard"), WHERE),
        "entropy": draw_entropy(get("entropy"), WHERE),
        "sense_linked": draw_sense_linked(count_linked(get("linked")), WHERE),
        "probes": draw_probes(get("probes"), WHERE),
        "retrieval": draw_retrieval(get("sweep"), get("baselines"), WHERE),
        "ablation": draw_ablation(get("ablation"), WHERE),
        "training": draw_training(get("training"), WHERE),
        "layers": draw_layers(places, compare_places(places), {"random-lm"}),
        "mixed_effects": draw_mixed_effects(get("contrasts"), get("fits")),
        "mixed_effects_diagnostics": draw_diagnostics(get("diagnostics"), get("fits")),
        "pooling": draw_pooling(get("poolings"), WHERE),
        "training_gain": draw_training_gain(get("gains"), WHERE),
        "faithfulness": draw_faithfulness(get("faithfulness")),
        "corpus": draw_corpus(count_occurrences(get("occurrences")), get("notes"), 10),
        "agreement": draw_agreement(get("agreement")),
        "ner": draw_ner(get("ner"), "gliner"),
        "benchmarks": draw_benchmarks(get("benchmarks")),
    }


@pytest.fixture
def benchmarks(tmp_path: Path) -> pl.DataFrame:
    names = "s h:m:s max_rss max_vms max_uss max_pss io_in io_out mean_load cpu_time"
    jobs = (("train_sae", 90.0, "900.5"), ("train_sae", 30.0, "800"), ("align", 0.1, "-"))
    for index, (rule, seconds, rss) in enumerate(jobs):
        cpu = "-" if rss == "-" else str(2 * seconds)
        line = [str(seconds), "0:00:01", rss, *["-"] * 6, cpu]
        path = tmp_path / rule / f"{index}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join("\t".join(row) for row in (names.split(), line)) + "\n")
    return gather_benchmarks(tmp_path)


def test_every_figure_is_an_svg_of_the_same_bytes_every_time(figures, tmp_path):
    for name, figure in figures.items():
        first, second = tmp_path / f"{name}.svg", tmp_path / f"{name}-again.svg"
        save(figure, first)
        save(figure, second)
        assert first.read_bytes() == second.read_bytes()
        assert first.read_text().startswith("<?xml")
        if folder := os.environ.get("MEDSAE_SHOW_FIGURES"):
            figure.savefig(Path(folder) / f"{name}.png", dpi=110)


NUMBERS_OF = {
    "jaccard": draw_jaccard,
    "entropy": draw_entropy,
    "probes": draw_probes,
    "ablation": draw_ablation,
    "poolings": draw_pooling,
    "gains": draw_training_gain,
}


def texts(figure: Figure) -> list[str]:
    """Everything written on a figure."""
    return [text.get_text() for text in figure.findobj(Text)]


def through_csv(table: pl.DataFrame, tmp_path: Path) -> pl.DataFrame:
    path = tmp_path / "table.csv"
    table.write_csv(path)
    return read(path)


@pytest.mark.parametrize("name", NUMBERS_OF)
@pytest.mark.parametrize("left", ["nothing", "nothing estimated"])
def test_a_table_without_results_gives_a_figure_that_says_so(request, tmp_path, name, left):
    table = request.getfixturevalue(name)
    if left == "nothing":
        table = table.clear()
    else:
        estimates = [column for column in table.columns if f"{column}_low" in table.columns]
        bounds = [f"{column}_{side}" for column in estimates for side in ("low", "high")]
        null = [pl.lit(None).alias(column) for column in [*estimates, *bounds]]
        q = [pl.lit(None).alias(column) for column in table.columns if column.startswith("q")]
        table = table.with_columns(*null, *q, pl.lit("too few occurrences").alias("reason"))
    figure = NUMBERS_OF[name](through_csv(table, tmp_path), WHERE)
    written = " ".join(texts(figure))
    assert re.search(r"enough|too few|no confirmed", written)


def test_other_empty_tables_give_figures_too(request, tmp_path, fits, notes):
    def empty(name: str) -> pl.DataFrame:
        return through_csv(request.getfixturevalue(name).clear(), tmp_path)

    counts = count_occurrences(request.getfixturevalue("occurrences").clear())
    for figure in (
        draw_sense_linked(count_linked(empty("linked")), WHERE),
        draw_retrieval(empty("sweep"), empty("baselines"), WHERE),
        draw_faithfulness(empty("faithfulness")),
        draw_mixed_effects(empty("contrasts"), empty("fits")),
        draw_mixed_effects(empty("contrasts"), through_csv(fits, tmp_path)),
        draw_diagnostics(empty("diagnostics"), empty("fits")),
        draw_diagnostics(empty("diagnostics"), through_csv(fits, tmp_path)),
        draw_agreement(empty("agreement")),
        draw_ner(empty("ner"), "gliner"),
        draw_layers(empty("jaccard"), compare_places(empty("jaccard")), set()),
        draw_corpus(counts, notes, 10),
    ):
        save(figure, tmp_path / "figure.svg")


def test_overlap_is_sorted_by_difference_and_says_how_many_terms_are_separated(jaccard):
    figure = draw_jaccard(jaccard, WHERE)
    written = texts(figure)
    assert any(text.startswith("5 of 6 ambiguous terms") for text in written)
    order = [text for text in written if text in ("regurgitation", "failure", "mass", "patient")]
    assert order == ["regurgitation", "failure", "mass", "patient"]
    assert "4 occurrences of endocrine; 10 needed" in written


def test_only_significant_differences_are_filled(jaccard):
    delta = draw_jaccard(jaccard, WHERE).axes[1]
    by_face: dict[str, int] = {}
    for line in delta.lines:
        if line.get_marker() == "o":
            face = line.get_markerfacecolor()
            by_face[face] = by_face.get(face, 0) + len(line.get_xdata())
    assert by_face[WITHIN] == 5  # ambiguous and significant
    # one of them not estimable, so not visible; controls have no difference to show
    assert by_face["white"] == 2 + 3


def test_random_cuts_of_controls_are_a_band_behind_every_difference(jaccard):
    delta = draw_jaccard(jaccard, WHERE).axes[1]
    bands = [c for c in delta.collections if to_hex(c.get_color()[0]) == CUTS.lower()]
    drawn = [path for band in bands for path in band.get_segments() if len(path)]
    ends = sorted(round(float(path[1][0]), 3) for path in drawn)
    assert ends == [0.01] * 3 + [0.012] * 5 + [0.06]


def test_the_strongest_confirmed_latent_stands_for_a_sense(linked):
    counts = count_linked(linked)
    discharge = counts.filter(pl.col("lemma") == "discharge").row(0, named=True)
    assert (discharge["n_discovered"], discharge["n_confirmed"], discharge["latent_id"]) == (
        3,
        2,
        1,
    )
    mass = counts.filter(pl.col("lemma") == "mass").row(0, named=True)
    assert (mass["n_confirmed"], mass["latent_id"]) == (0, None)


def test_occurrences_patients_and_unresolved_ones_are_counted(occurrences):
    counts = count_occurrences(occurrences)
    mass = counts.filter(pl.col("lemma") == "mass")
    assert mass["n_occurrences"].sum() == 43 + 43 + 12
    assert mass.filter(pl.col("sense").is_null())["n_occurrences"].item() == 12
    assert mass["n_patients_of_term"].unique().to_list() == [22]


def test_notes_without_patient_ids_are_named_as_such(occurrences, notes):
    alone = notes | {"patient_ids": "one per note"}
    written = " ".join(texts(draw_corpus(count_occurrences(occurrences), alone, 10)))
    assert "each note counts as its own patient" in written


def test_comparison_has_a_row_per_place_and_the_controls_beside(jaccard):
    places = compare_places(several_places(jaccard))
    assert places.select("model", "layer").rows() == [
        ("random-lm", 10),
        ("small-lm", 10),
        ("small-lm", 20),
    ]
    full, weak = (
        places.filter(layer=layer, model="small-lm")["delta"].item() for layer in (10, 20)
    )
    assert weak == pytest.approx(0.6 * full)
    assert places["chance_delta_95"].to_list() == [0.012] * 3
    assert places["n_separated"].to_list()[1:] == [5, 5]
    # Δ of discharge, and with it others at the weaker layer, lie within the cuts
    assert places["n_beyond_chance"].to_list()[1] == 4
    assert places["n_controls"].to_list() == [3, 3, 3]


def test_benchmarks_add_up_the_jobs_of_a_rule(benchmarks):
    assert benchmarks.rows(named=True) == [
        {"rule": "train_sae", "n_jobs": 2, "total_s": 120.0, "longest_s": 90.0}
        | {"cpu_s": 240.0, "peak_rss_mb": 900.5},
        {"rule": "align", "n_jobs": 1, "total_s": 0.1, "longest_s": 0.1}
        | {"cpu_s": 0.0, "peak_rss_mb": None},
    ]


def test_contrasts_of_an_unsound_fit_are_not_counted_as_found(contrasts, fits):
    low = contrasts.with_columns(pl.lit(0.001).alias("qvalue"))
    n = low.filter(pl.col("specification") == "planned").height
    for status, found in (("ok", n), ("singular", 0)):
        figure = draw_mixed_effects(low.with_columns(pl.lit(status).alias("status")), fits)
        title = f"{found} of {n} planned contrasts differ from zero"
        assert any(title in text.get_text() for text in figure.findobj(Text))


def test_long_contrasts_are_not_cut_off(contrasts, fits):
    long = "same sense − other sense, openbiollm-llama3-70b-instruct − medgemma-27b-text-it-random"
    figure = draw_mixed_effects(contrasts.with_columns(pl.lit(long).alias("contrast")), fits)
    figure.draw_without_rendering()
    labels = [
        t for axis in figure.axes for t in axis.get_yticklabels() if "openbiollm" in t.get_text()
    ]
    assert labels
    for label in labels:
        box = label.get_window_extent()
        assert box.x0 > 0 and box.height < 72


def test_diagnostics_have_panels_for_each_fit_and_a_reason_for_each_other(diagnostics, fits):
    figure = draw_diagnostics(diagnostics, fits)
    fitted = diagnostics.select("response", "specification").n_unique()
    assert len(figure.axes) == 3 * fitted
    assert any("there are no rows" in text for text in texts(figure))


def test_pooling_names_the_largest_change(poolings):
    written = " ".join(texts(draw_pooling(poolings, WHERE)))
    assert re.search(r"at most −0.04\d? \[.*Most: \w+, mean\.", written)


def test_a_profile_by_layer_is_drawn_where_there_are_several(jaccard):
    several = several_places(jaccard)
    figure = draw_layers(several, compare_places(several), {"random-lm"})
    assert "layer" in [axis.get_xlabel() for axis in figure.axes]
    (profile,) = (axis for axis in figure.axes if axis.get_xlabel() == "layer")
    assert [line.get_label() for line in profile.lines if "-lm" in str(line.get_label())] == [
        "small-lm"
    ]
    assert len(draw_layers(jaccard, compare_places(jaccard), set()).axes) == 1
