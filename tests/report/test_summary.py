"""The words say what the tables say, and no more."""

import re
from dataclasses import replace

import polars as pl
import pytest

from medsae.polysemy.ablation_summary import ALL_TERMS
from medsae.report import headline as numbers
from medsae.report.document import to_markdown, to_rst
from medsae.report.findings import Run, headline, limits
from medsae.report.layers import compare_places
from medsae.report.sense_linked import count_linked
from medsae.report.summary import front_page, write_summary
from medsae.report.tables import read
from tests.report.conftest import PLACE, POOR

RANDOM = "random-lm"


def summary_of(get, jaccard: pl.DataFrame) -> dict:
    (model, layer, sae) = jaccard.select("model", "layer", "sae").row(0)
    calibration = pl.DataFrame({"firing_count": [0, 3, 4, 5]})
    return {
        "model": model,
        "layer": layer,
        "sae": sae,
        "overlap": numbers.summarise_overlap(jaccard),
        "pooling": numbers.summarise_pooling(get("poolings")),
        "sense_linked": numbers.summarise_linked(get("linked")),
        "probes": numbers.summarise_probes(get("probes")),
        "retrieval": numbers.summarise_retrieval(get("sweep"), get("baselines")),
        "ablation": numbers.summarise_ablation(get("ablation")),
        "faithfulness": numbers.summarise_faithfulness(get("faithfulness").head(1)),
        "dead_fraction": numbers.dead_fraction(calibration),
    }


@pytest.fixture
def make_run(request: pytest.FixtureRequest):
    """A run of the planted tables; ``random_scale`` is what random weights leave of each Δ."""

    def make(random_scale: float | None = 0.1, **changes) -> Run:
        get = request.getfixturevalue
        tables = [get("jaccard")]
        if random_scale is not None:
            scaled = pl.col("delta", "delta_low", "delta_high") * random_scale
            tables.append(tables[0].with_columns(scaled, pl.lit(RANDOM).alias("model")))
        values = {
            "corpus": "planted",
            "random_models": frozenset([RANDOM, "a-random-lm"]),
            "ner_name": "gliner",
            "synthetic": False,
            "sense_source": "gold",
            "summaries": [summary_of(get, table) for table in tables],
            "jaccard": pl.concat(tables),
            "notes": get("notes"),
            "agreement": get("agreement"),
            "contrasts": get("contrasts"),
            "fits": get("fits"),
            "gains": None if random_scale is None else get("gains_at")(random_scale),
            "ner": get("ner"),
        }
        return Run(**(values | changes))

    return make


def test_a_model_is_compared_with_the_control_of_its_gains(make_run):
    run = make_run()
    trained, control = run.summaries
    others = [control | {"model": "a-random-lm"}, control | {"layer": 99}]
    run = replace(run, summaries=[trained, *others, control])
    assert run.counterpart(trained) is control
    layer = pl.lit(99).alias("untrained_layer")
    assert run.gains is not None
    run = replace(run, gains=run.gains.with_columns(layer))
    assert run.counterpart(trained) is others[1]
    assert replace(run, gains=None).counterpart(trained) is None


def test_which_separated_terms_gain_by_training_is_said(make_run):
    text = " ".join(headline(make_run()))
    assert (
        "the interval of the difference (not corrected for the number of terms) lies above zero "
        "for 5 of the 5 separated: block, discharge, failure, regurgitation and shock." in text
    )
    run = make_run()
    assert run.gains is not None
    few = run.gains.with_columns(pl.when(lemma="block").then("gain_low").otherwise(-0.1))
    assert "for 1 of the 5 separated: block." in " ".join(headline(replace(run, gains=few)))


def test_headline_numbers_are_those_of_the_table(jaccard):
    overlap = numbers.summarise_overlap(jaccard)
    terms = jaccard.filter((pl.col("k") == 10) & (pl.col("kind") == "polysemous"))
    assert (overlap["n_terms"], overlap["n_terms_estimated"]) == (7, 6)
    assert overlap["terms_separated"] == sorted(
        ["block", "discharge", "failure", "regurgitation", "shock"]
    )
    assert overlap["delta"]["value"] == pytest.approx(terms["delta"].mean())
    assert "control_delta" not in overlap and overlap["n_controls"] == 3
    assert overlap["chance_delta_95"] == 0.012
    assert overlap["terms_separated_within_chance"] == ["discharge"]
    assert overlap["overlap_of_different_terms"] == {"value": 0.08, "low": 0.07, "high": 0.09}


def test_a_term_needs_both_a_small_q_and_an_interval_above_zero(jaccard):
    wide = jaccard.with_columns(delta_low=-pl.lit(0.01))
    assert numbers.summarise_overlap(wide)["n_terms_separated"] == 0
    uncorrected = jaccard.with_columns(qvalue=pl.lit(0.05))
    assert numbers.summarise_overlap(uncorrected)["n_terms_separated"] == 0


def test_every_term_gets_a_verdict_with_effect_interval_q_and_counts(make_run):
    text = to_markdown(write_summary(make_run()))
    discharge = next(line for line in text.splitlines() if line.startswith("- **discharge**"))
    assert "separated" in discharge and "not shown" not in discharge
    assert "Δ = 0.050 [0.020, 0.080], q < 0.001" in discharge
    assert "64 + 58 occurrences, 97 patients" in discharge
    assert "separated, but by no more than random cuts of controls" in discharge
    assert "95% have |Δ| below 0.06." in discharge
    assert "With random weights Δ = 0.005 [0.002, 0.008]: training adds +0.045" in discharge
    assert "- **mass** (radiological / anatomical): not shown to be separated" in text
    assert "- **insufficiency** (renal / endocrine): not enough data: 4 occurrences" in text


# the result or the level of a test; where cuts of controls lie
NO_ESTIMATE = re.compile(r"([qp] [=<] |^< |\|Δ\| (below|up to) )$")
COLUMNS_WITHOUT = ("q", "cuts of controls, 95% of \\|Δ\\| below")


def passages(text):
    """Sentences and cells of tables, apart from those that hold no estimates."""
    header = None
    for line in text.splitlines():
        cells = re.split(r" (?<!\\)\| ", line.strip("| ")) if line.startswith("|") else None
        header = None if cells is None else header or cells
        if cells is None:
            yield line
        else:
            named = zip(header, cells, strict=False)
            yield from (cell for name, cell in named if name not in COLUMNS_WITHOUT)


def test_the_summary_says_whose_senses_it_is_about(make_run):
    run = make_run()
    assert "about the gold senses of 854 occurrences." in to_markdown(write_summary(run))
    some = replace(run, agreement=run.agreement.with_columns(n_gold=100))
    text = to_markdown(write_summary(some))
    assert "gold senses of 700 occurrences and, where there is none, assigned ones of 154." in text
    for other in (replace(run, sense_source="resolver"), replace(run, agreement=none_of(run))):
        assert "about the assigned senses of 854" in to_markdown(write_summary(other))


def none_of(run):
    return run.agreement.with_columns(n_gold=pl.lit(0))


@pytest.mark.parametrize("random_scale", [None, 0.1, 1.0])
def test_no_number_is_claimed_without_its_interval(make_run, random_scale):
    n_estimates = 0
    for passage in passages(to_markdown(write_summary(make_run(random_scale)))):
        outside = re.sub(r"\[[^\]]*\]", "[]", passage)
        for found in re.finditer(r"[+−]?\d+\.\d+%?", outside):
            before, after = outside[: found.start()], outside[found.end() :]
            if not NO_ESTIMATE.search(before) and not after.startswith(" of the latents never"):
                assert after.startswith(" []"), passage
                n_estimates += 1
    assert n_estimates > 50


def test_random_weights_are_named_and_subtracted(make_run):
    points = headline(make_run(random_scale=0.1))
    assert any("(random weights)" in point for point in points)
    gain = next(point for point in points if "differs by" in point)
    assert "an untrained network do not separate as much" in gain


def test_the_headline_gives_the_clearest_term_with_its_null_and_control(make_run):
    point = headline(make_run())[0]
    assert re.search(
        r"Most clearly \w+: Δ = 0\.\d+ \[.*\], q .* shuffled among patients, "
        r"\|Δ\| below 0\.012 in 95% of random cuts of controls; "
        r"with random weights Δ = 0\.\d+ \[",
        point,
    )
    assert "with random weights" not in headline(make_run(random_scale=None))[0]


def test_training_adds_nothing_when_random_weights_do_as_well(make_run):
    gain = next(point for point in headline(make_run(random_scale=1.0)) if "differs by" in point)
    assert "not shown to add" in gain


def test_a_run_without_random_weights_says_what_is_missing(make_run):
    assert any("No model with random weights" in point for point in headline(make_run(None)))


def test_limits_name_what_the_run_lacks(make_run, agreement, notes):
    blind = agreement.with_columns(pl.lit(None, pl.Float64).alias("accuracy"))
    run = make_run(
        synthetic=True, agreement=blind, ner=None, notes=notes | {"patient_ids": "one per note"}
    )
    text = " ".join(limits(run))
    assert "insufficiency (4 occurrences of endocrine; 10 needed)" in text
    assert "entropy (planned formula): not estimable: there are no rows" in text
    assert "delta_ce (planned formula): singular" in text
    for sentence in ("generated", "own patient", "Without gold senses", "Without gold spans"):
        assert sentence in text
    complete = " ".join(limits(make_run()))
    for sentence in ("generated", "own patient", "Without gold"):
        assert sentence not in complete


def test_a_model_whose_residuals_do_not_fit_is_a_caution(make_run, fits):
    distances = pl.Series("residual_distance", [0.05, None, 0.35, 0.1, 0.1])
    points = limits(make_run(fits=fits.with_columns(distances)))
    (point,) = (point for point in points if "residuals" in point)
    assert "delta_ce (planned formula)" in point and "0.35" in point


def test_a_separated_term_within_random_cuts_of_controls_is_a_caution(make_run, jaccard):
    points = [point for point in limits(make_run()) if "random cuts" in point]
    assert len(
        [point for point in points if "discharge counted as separated, but random cuts" in point]
    )
    assert "4 of the separated differ by more than 95% of random cuts" in headline(make_run())[0]
    text = to_markdown(write_summary(make_run()))
    (block,) = (line for line in text.splitlines() if line.startswith("- **block**"))
    assert "separated. Two" in block and "below 0.012" in block
    far = pl.when(pl.col("chance_delta_95") == 0.06).then(0.01).otherwise("chance_delta_95")
    apart = jaccard.with_columns(far.alias("chance_delta_95"))
    overlap = numbers.summarise_overlap(apart)
    run = make_run()
    summaries = [summary | {"overlap": overlap} for summary in run.summaries]
    assert not any("random cuts" in point for point in limits(make_run(summaries=summaries)))


def test_a_term_without_controls_is_neither_beyond_nor_within_chance(make_run, jaccard):
    unmatched = pl.when(lemma="block").then(None).otherwise("chance_delta_95")
    table = jaccard.with_columns(unmatched.alias("chance_delta_95"))
    overlap = numbers.summarise_overlap(table)
    assert overlap["n_terms_separated"] == 5
    assert overlap["n_terms_separated_beyond_chance"] == 3
    assert overlap["terms_separated_within_chance"] == ["discharge"]
    (place,) = compare_places(table).iter_rows(named=True)
    assert (place["n_separated"], place["n_beyond_chance"]) == (5, 3)
    summaries = [summary | {"overlap": overlap} for summary in make_run().summaries]
    point = headline(make_run(summaries=summaries))[0]
    assert "3 of the separated differ by more than 95% of random cuts of terms with one" in point


def test_without_any_controls_nothing_is_said_of_chance(jaccard):
    none = jaccard.with_columns(pl.lit(None, pl.Float64).alias("chance_delta_95"))
    (place,) = compare_places(none).iter_rows(named=True)
    assert (place["n_separated"], place["n_beyond_chance"]) == (5, None)
    # no term separated: none of them is beyond chance
    (place,) = compare_places(none.with_columns(qvalue=pl.lit(1.0))).iter_rows(named=True)
    assert (place["n_separated"], place["n_beyond_chance"]) == (0, 0)


def test_what_no_permutation_can_change_is_not_testable_and_never_p_one(make_run, jaccard, linked):
    frozen = pl.col("lemma") == "shock"
    null = [pl.when(frozen).then(None).otherwise(name).alias(name) for name in ("pvalue", "qvalue")]
    reason = pl.when(frozen).then(pl.lit("not testable: why")).otherwise("reason").alias("reason")
    table = jaccard.with_columns(*null, reason)
    found = numbers.summarise_overlap(table)
    assert found["terms_not_testable"] == ["shock"]
    assert "shock" not in found["terms_separated"] + found["terms_not_shown"]
    latents = numbers.summarise_linked(
        linked.with_columns(null[0], reason, pl.col("discovered", "confirmed") & ~frozen)
    )
    assert latents["terms_not_testable"] == {"shock": "not testable: why"}
    run = make_run()
    summaries = [s | {"overlap": found, "sense_linked": latents} for s in run.summaries]
    run = make_run(None, summaries=summaries[:1], jaccard=table)
    text = to_markdown(write_summary(run))
    (line,) = (line for line in text.splitlines() if line.startswith("- **shock**"))
    assert "no verdict (not testable: why)" in line and "no q" in line
    point = next(point for point in limits(run) if "could not be tested" in point)
    assert "tested: Δ of shock (" in point and "latents of shock (not testable: why)." in point
    assert "| not testable |" in text


def untested(linked, reasons):
    """The rows of terms without a latent to test."""
    rows = [PLACE | {"lemma": lemma, "reason": reason} for lemma, reason in reasons.items()]
    schema = {name: linked.schema[name] for name in (*PLACE, "lemma")} | {"reason": pl.String}
    return pl.DataFrame(rows, schema).with_columns(pl.lit(0).alias("n_tests"))


def test_terms_without_a_latent_to_test_are_named_with_the_reason(make_run, linked, tmp_path):
    rows = untested(linked, {"mass": "no latent fires", POOR: "4 occurrences"})
    tested = linked.filter(pl.col("lemma") != "mass")
    both = pl.concat([tested, rows], how="diagonal_relaxed")
    found = numbers.summarise_linked(both)
    assert found["terms_not_testable"] == {POOR: "4 occurrences", "mass": "no latent fires"}
    assert found["n_tests"] == 5000 and found["n_confirmed"] == 20
    assert count_linked(both).equals(count_linked(tested))
    summary = make_run().trained[0] | {"sense_linked": found}
    points = " ".join(limits(make_run(summaries=[summary])))
    # the others are among those of which nothing can be said
    assert "could not be tested: latents of mass (no latent fires)." in points
    assert "4 occurrences of endocrine; 10 needed" in points and "(4 occurrences)" not in points
    # nothing at all is tested
    nothing = pl.concat([linked.clear(), rows], how="diagonal_relaxed")
    nothing.write_csv(tmp_path / "linked.csv")
    found = numbers.summarise_linked(read(tmp_path / "linked.csv"))
    assert (found["n_tests"], found["smallest_q"], found["n_discovered"]) == (0, None, 0)
    text = to_markdown(write_summary(make_run(summaries=[summary | {"sense_linked": found}])))
    assert "latents: no latent of any term could be tested; the reasons are given below." in text
    assert "0 discovered" not in text and "latents of mass (no latent fires)." in text


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("note", "layer nested in model", "on average over their own layers"),
        ("dropped", "layer (follows from the terms before it)", "cannot tell the layer"),
    ],
)
def test_what_the_models_say_of_layers_is_said(make_run, fits, column, value, words):
    assert not any(words in point for point in limits(make_run()))
    changed = fits.with_columns(pl.lit(value).alias(column))
    assert any(words in point for point in limits(make_run(fits=changed)))


def test_latents_that_do_not_know_the_word_are_a_caution(make_run):
    run = make_run()
    assert not any("word itself" in point for point in limits(run))
    blind = {"control_overlap": {"value": 0.015, "low": 0.014, "high": 0.016}}
    blind["overlap_of_different_terms"] = {"value": 0.013, "low": 0.012, "high": 0.014}
    summaries = [
        summary | {"overlap": summary["overlap"] | blind} if summary["model"] == RANDOM else summary
        for summary in run.summaries
    ]
    points = [point for point in limits(make_run(summaries=summaries)) if "word itself" in point]
    assert len(points) == 1 and RANDOM in points[0]
    gain = next(p for p in headline(make_run(summaries=summaries)) if "differs by" in p)
    assert "weak control" in gain


@pytest.mark.parametrize(
    ("smallest_q", "words"),
    [(0.05, "one alone could reach q = 0.050"), (0.31, "q < 0.05 takes 7 latents")],
)
def test_what_the_permutations_can_show_is_said(make_run, smallest_q, words):
    run = make_run()
    run.trained[0]["sense_linked"]["smallest_q"] = smallest_q
    text = to_markdown(write_summary(run))
    assert "5,000 tests, of which one alone" in text and words in text


def test_retrieval_that_cannot_be_estimated_says_why(make_run, sweep):
    row = sweep.head(1).with_columns(pl.lit(False).alias("chosen"), pl.lit("why").alias("reason"))
    numbers_of = numbers.summarise_retrieval(row, sweep.clear())
    run = make_run()
    run.trained[0]["retrieval"].update(numbers_of)
    assert "Retrieval: why." in to_markdown(write_summary(run))


def test_removal_is_summed_up_over_all_terms_with_its_own_interval(ablation, make_run):
    found = numbers.summarise_ablation(ablation)
    assert found["difference_in_differences_nats"] == pytest.approx(
        {"value": 0.04, "low": 0.03, "high": 0.05}
    )
    assert found["n_senses"] == 10  # of seven terms two are poor; the row over all is no sense
    text = to_markdown(write_summary(make_run()))
    assert "difference in differences is +0.0400 [+0.0300, +0.0500]" in text
    assert "These latents fire 1.38 [1.22, 1.54] times as strongly at their own sense" in text


@pytest.mark.parametrize(
    ("n_able", "words"),
    [(10, "one alone could pass)"), (3, "one alone could pass, in 3 of them)"), (0, "not pass)")],
)
def test_senses_with_too_few_patients_to_pass_alone_are_counted(ablation, make_run, n_able, words):
    rank = pl.col("smallest_q").is_not_null().cum_sum()
    smallest = pl.when(rank <= n_able).then("smallest_q").otherwise(0.05)
    found = numbers.summarise_ablation(ablation.with_columns(smallest_q=smallest))
    assert found["n_senses_able_above_other_sense"] == n_able
    assert found["n_senses_able_above_random_latent"] == 10
    run = make_run(None)
    run.trained[0]["ablation"].update(found)
    text = to_markdown(write_summary(run))
    assert "(all terms; 10 of 10 senses at q < 0.05; one alone could pass)" in text
    (sentence,) = re.findall(r"\(10 of 10 senses at q < 0\.05; one alone[^)]*\)", text)
    assert sentence.endswith(words)


def test_intervals_of_the_ablation_from_few_patients_are_a_caution(ablation, make_run):
    (point,) = (point for point in limits(make_run()) if "skewed" in point)
    assert "as few as 12 patients a sense" in point
    many = ablation.with_columns(n_patients_on=pl.lit(40))
    run = make_run(None)
    run.trained[0]["ablation"].update(numbers.summarise_ablation(many))
    assert not any("skewed" in point for point in limits(run))


def test_a_removal_known_over_all_terms_only_is_told(ablation, make_run):
    whole = pl.col("lemma") == ALL_TERMS
    poor = [
        pl.when(whole).then(name).otherwise(None).alias(name)
        for name in ("contrast", "did", "qvalue", "qvalue_contrast")
    ]
    run = make_run(None)
    run.trained[0]["ablation"].update(numbers.summarise_ablation(ablation.with_columns(poor)))
    assert run.trained[0]["ablation"]["n_senses"] == 0
    text = to_markdown(write_summary(run))
    assert "none to remove" not in text
    assert "latents (all terms; no sense alone has enough patients)." in text
    assert "difference in differences is +0.0400" in text
    run.trained[0]["ablation"].update(linked_minus_random_nats=None)
    assert "there is none to remove in enough patients." in to_markdown(write_summary(run))


def test_latents_of_a_term_are_not_testable_if_those_of_no_sense_are(linked):
    lemma = linked["lemma"][0]
    senses = linked.filter(lemma=lemma)["sense"].unique().sort()
    assert len(senses) == 2

    def untestable(*senses):
        some = (pl.col("lemma") == lemma) & pl.col("sense").is_in(senses)
        pvalue = pl.when(some).then(None).otherwise("pvalue").alias("pvalue")
        return list(numbers.summarise_linked(linked.with_columns(pvalue))["terms_not_testable"])

    assert untestable(senses[0]) == []
    assert untestable(*senses) == [lemma]


def test_a_term_counts_once_whatever_its_senses(probes):
    found = numbers.summarise_probes(probes)
    assert (found["n_terms"], found["n_terms_above_chance"]) == (6, 5)
    mean = probes.filter(pl.col("sense").is_null())["auroc"].mean()
    assert found["auroc"]["value"] == pytest.approx(mean)
    # a third sense of one term changes neither the count nor the mean
    third = probes.filter(sense="clinical").with_columns(pl.lit("third").alias("sense"))
    assert numbers.summarise_probes(pl.concat([probes, third])) == found


def test_what_retrieves_better_than_latents_is_said_with_its_interval(make_run):
    text = to_markdown(write_summary(make_run()))
    assert (
        "The words around retrieve senses better than all latents: P@1 differs by "
        "+0.050 [+0.030, +0.070]." in text
    )
    assert "The hidden state retrieves senses no better or worse, as far as this shows," in text
    assert "words around 0.79 [0.75, 0.83]" in text


def test_an_undetermined_faithfulness_is_a_caution(make_run):
    run = make_run()
    wild = {"loss_recovered": {"value": 0.99, "low": -3.8, "high": 6.4}}
    summaries = [s | {"faithfulness": s["faithfulness"] | wild} for s in run.summaries]
    points = limits(make_run(summaries=summaries))
    assert any("how faithful the autoencoder is cannot be said" in point for point in points)


def test_more_than_the_whole_loss_recovered_is_explained(make_run):
    run = make_run()
    for low, explained in ((0.97, False), (1.02, True)):
        more = {"loss_recovered": {"value": 1.04, "low": low, "high": 1.06}}
        summaries = [s | {"faithfulness": s["faithfulness"] | more} for s in run.summaries]
        text = to_markdown(write_summary(make_run(summaries=summaries)))
        assert ("predicts these notes better than the state itself" in text) == explained


def test_a_faithfulness_without_enough_patients_says_so(make_run):
    run = make_run()
    few = {"loss_recovered": None, "reason": "notes of fewer than 5 patients are held out"}
    summaries = [s | {"faithfulness": s["faithfulness"] | few} for s in run.summaries]
    points = limits(make_run(summaries=summaries))
    assert any("cannot be said: notes of fewer than 5 patients" in point for point in points)


def test_the_summary_of_empty_tables_says_not_enough_data(make_run, jaccard, linked, probes, sweep):
    empty = numbers.summarise_overlap(jaccard.clear())
    assert empty["delta"] is None and empty["n_terms"] == 0
    assert numbers.summarise_linked(linked.clear())["n_confirmed"] == 0
    assert numbers.summarise_probes(probes.clear())["auroc"] is None
    assert numbers.summarise_retrieval(sweep.clear(), sweep.clear())["delta_p_at_1"] is None


def test_the_front_page_is_valid_rst(make_run):
    publish = pytest.importorskip("docutils.core").publish_parts
    body = publish(
        to_rst(front_page(make_run())), writer="html", settings_overrides={"halt_level": 2}
    )
    assert "<li>" in body["body"] and "system-message" not in body["body"]
