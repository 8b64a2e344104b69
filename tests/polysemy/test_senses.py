import numpy as np
import polars as pl
import pytest
from scipy.stats import binom
from sklearn.metrics import cohen_kappa_score

from medsae.polysemy.columns import LEXICON
from medsae.polysemy.senses import (
    CUE_WINDOW,
    _kappa,
    _share_by_patient,
    cue_labeller,
    label_votes,
    resolve,
    sense_agreement,
)
from medsae.statistics import wilson_interval

LEXICON_ROWS = [
    (
        "discharge",
        "administrative",
        "discharge",
        r"\bhome\b",
        "wound",
        "event|procedure",
        "polysemous",
    ),
    ("discharge", "clinical", "discharge", "wound|purulent", "", "fluid|procedure", "polysemous"),
    ("biopsy", "", "biopsy", "", "", "", "control"),
]


@pytest.fixture
def lexicon():
    return pl.DataFrame(LEXICON_ROWS, schema=dict.fromkeys(LEXICON, pl.String), orient="row")


@pytest.fixture
def cue(lexicon):
    label = cue_labeller(lexicon)

    def at(text, term="discharge"):
        start = text.index(term)
        return label(text, start, start + len(term), term)

    return at


def test_one_cue_speaks(cue):
    assert cue("Plan: discharge home today") == "administrative"
    assert cue("PURULENT discharge") == "clinical"


def test_no_cue_or_two_cues_say_nothing(cue):
    assert cue("discharge") is None
    assert cue("purulent discharge, sent home") is None


def test_exclusion_wins_over_the_domain(cue):
    assert cue("sent home, discharge from the wound") == "clinical"


def test_controls_have_no_sense(cue):
    assert cue("home biopsy purulent", "biopsy") is None


def test_cues_count_up_to_the_window_and_no_further(cue):
    gap = " " * (CUE_WINDOW - len("purulent"))
    assert cue("purulent" + gap + "discharge") == "clinical"
    assert cue("purulent" + gap + " discharge") is None
    assert cue("discharge" + gap + "purulent") == "clinical"
    assert cue("discharge" + gap + " purulent") is None


def test_a_word_cut_by_the_window_is_not_a_cue(cue):
    # the window begins at "home" of "nursinghome"
    assert cue("nursinghome" + " " * (CUE_WINDOW - 4) + "discharge") is None


def test_the_heading_of_a_section_is_a_cue_for_all_of_it(cue):
    far = " x" * CUE_WINDOW
    assert cue(f"Purulent wounds:\n{far} discharge") == "clinical"
    assert cue(f"  Going home: {far} discharge") == "administrative"
    assert cue(f"Purulent wounds:\n{far}\nOther findings:\n{far} discharge") is None
    assert cue(f"Purulent wounds\n{far} discharge") is None  # no colon: no heading
    assert cue(f"Wound:\n{far} discharge home") == "clinical"  # it excludes the other
    assert cue(f"{far} discharge{far}\nPurulent:\n{far}") is None  # of the section after it


def test_only_labels_of_one_sense_vote(lexicon):
    votes = label_votes(lexicon).sort("ner_label")
    assert votes.rows() == [
        ("discharge", "event", "administrative"),
        ("discharge", "fluid", "clinical"),
    ]


@pytest.mark.parametrize(
    ("ner", "cue", "expected"),
    [
        ("a", "a", "a"),
        ("a", None, "a"),
        (None, "b", "b"),
        ("a", "b", None),
        (None, None, None),
    ],
)
def test_resolver_abstains_on_disagreement(ner, cue, expected):
    table = pl.DataFrame(
        {"ner_sense": [ner], "cue_sense": [cue], "gold_sense": ["g"]},
        schema=dict.fromkeys(("ner_sense", "cue_sense", "gold_sense"), pl.String),
    )
    resolved = table.with_columns(resolve("resolver"))
    assert resolved.row(0, named=True)["resolved_sense"] == expected
    assert resolved.row(0, named=True)["sense"] == expected
    assert table.with_columns(resolve("gold")).row(0, named=True)["sense"] == "g"
    no_gold = table.with_columns(pl.lit(None, pl.String).alias("gold_sense"))
    assert no_gold.with_columns(resolve("gold")).row(0, named=True)["sense"] == expected


def simulated(n=300, seed=0):
    rng = np.random.default_rng(seed)
    gold = rng.choice(["a", "b"], n, p=[0.7, 0.3])

    def labeller(right, silent):
        other = np.where(gold == "a", "b", "a")
        said = np.where(rng.random(n) < right, gold, other).astype(object)
        said[rng.random(n) < silent] = None
        return said.tolist()

    table = pl.DataFrame(
        {
            "patient_id": [f"p{i // 3}" for i in range(n)],
            "lemma": ["term"] * n,
            "kind": ["polysemous"] * n,
            "ner_sense": labeller(0.9, 0.3),
            "cue_sense": labeller(0.8, 0.2),
            "gold_sense": gold.tolist(),
        },
        schema_overrides=dict.fromkeys(("ner_sense", "cue_sense", "gold_sense"), pl.String),
    )
    return table.with_columns(resolve("resolver"))


def test_agreement_counts_and_kappa_equal_their_definitions():
    table = simulated()
    row = sense_agreement(table, 400, 1).row(0, named=True)
    ner, cue, resolved, gold = (
        table[c].to_list() for c in ("ner_sense", "cue_sense", "resolved_sense", "gold_sense")
    )
    both = [(a, b) for a, b in zip(ner, cue, strict=True) if a and b]
    assert row["n_occurrences"] == 300
    assert row["n_both"] == len(both)
    assert row["n_agree"] == sum(a == b for a, b in both)
    assert row["n_resolved"] == sum(x is not None for x in resolved)
    assert row["n_abstained"] == 300 - row["n_resolved"]
    assert row["n_sense"] == row["n_resolved"]
    of_gold = table.with_columns(resolve("gold"))
    assert sense_agreement(of_gold, 99, 1)["n_sense"].item() == 300
    assert row["kappa"] == pytest.approx(cohen_kappa_score(*zip(*both, strict=True)))
    assert row["kappa_low"] < row["kappa"] < row["kappa_high"]
    for name, labels in (("", resolved), ("ner_", ner), ("cue_", cue)):
        judged = [a == b for a, b in zip(labels, gold, strict=True) if a]
        assert row[f"{name}accuracy"] == pytest.approx(np.mean(judged))
        assert row[f"{name}accuracy_low"] < row[f"{name}accuracy"] < row[f"{name}accuracy_high"]
    assert row["majority_baseline"] == pytest.approx(max(gold.count("a"), gold.count("b")) / 300)


def test_resolved_senses_are_more_accurate_than_either_labeller():
    row = sense_agreement(simulated(3000), 99, 1).row(0, named=True)
    # right when both agree: .9·.8 of .9·.8 + .1·.2
    assert row["accuracy"] > max(row["ner_accuracy"], row["cue_accuracy"]) - 0.01
    assert row["ner_accuracy"] == pytest.approx(0.9, abs=0.03)
    assert row["cue_accuracy"] == pytest.approx(0.8, abs=0.03)


def test_the_interval_of_the_accuracy_knows_that_patients_err_alike():
    """A labeller that is right 85% of the time, patient by patient; 500 corpora of 25 patients."""
    covered = naive = 0
    for number in range(500):
        rng = np.random.default_rng(number)
        patient = np.repeat(np.arange(25), rng.integers(2, 9, 25))
        right = rng.random(len(patient)) < rng.beta(1.7, 0.3, 25)[patient]
        share, low, high = _share_by_patient(right, patient)
        assert share == pytest.approx(right.mean())
        covered += low <= 0.85 <= high
        low, high = wilson_interval(right.sum(), len(right))
        naive += low <= 0.85 <= high
    assert naive < 0.85 * 500
    assert covered >= binom.ppf(0.0005, 500, 0.93)


def test_the_interval_of_kappa_knows_that_patients_agree_alike():
    """Labellers that agree in 80%, patient by patient, by chance in half: κ = 0.6; 500 corpora."""
    covered = naive = 0
    for number in range(500):
        rng = np.random.default_rng(number)
        patient = np.repeat(np.arange(40), rng.integers(2, 9, 40))
        ner = rng.choice(["a", "b"], len(patient))
        agree = rng.random(len(patient)) < rng.beta(1.6, 0.4, 40)[patient]
        cue = np.where(agree, ner, np.where(ner == "a", "b", "a"))
        both = pl.DataFrame({"patient_id": patient, "ner_sense": ner, "cue_sense": cue})
        kappa, low, high = _kappa(both, 400, rng)
        assert low <= kappa <= high
        covered += low <= 0.6 <= high
        alone = both.with_columns(patient_id=pl.int_range(pl.len()))
        _, low, high = _kappa(alone, 400, rng)
        naive += low <= 0.6 <= high
    assert naive < 0.85 * 500
    assert covered >= binom.ppf(0.0005, 500, 0.93)


def test_kappa_of_few_patients_or_without_disagreement_has_no_interval():
    table = simulated()
    few = table.filter(pl.col("patient_id").is_in([f"p{i}" for i in range(4)]))
    agreed = table.with_columns(ner_sense=pl.col("gold_sense"), cue_sense=pl.col("gold_sense"))
    for part, kappa in ((few, None), (agreed, 1.0)):
        row = sense_agreement(part, 99, 1).row(0, named=True)
        assert row["kappa"] is not None and kappa in (None, row["kappa"])
        assert row["kappa_low"] is None and row["kappa_high"] is None


def test_patients_alike_by_chance_are_no_surer_than_independent_occurrences():
    patient = np.repeat(np.arange(20), 10)
    right = np.tile(np.arange(10) < 8, 20)
    right[[9, 10]] = True, False  # the first patient 9 of 10, the second 7: others all 8
    share, low, high = _share_by_patient(right, patient)
    independent = wilson_interval(right.sum(), len(right))
    assert share == pytest.approx(0.8)
    assert low <= independent[0] < independent[1] <= high


def test_an_accuracy_without_errors_is_as_sure_as_there_are_patients():
    share, low, high = _share_by_patient(np.ones(60, bool), np.repeat(np.arange(6), 10))
    assert share == high == 1.0 and 0.4 < low < 0.55
    assert _share_by_patient(np.ones(9, bool), np.zeros(9, int)) == (1.0, None, None)
    assert _share_by_patient(np.empty(0, bool), np.empty(0, int)) == (None, None, None)


def test_without_gold_there_is_no_accuracy_but_there_is_kappa():
    table = simulated().with_columns(pl.lit(None, pl.String).alias("gold_sense"))
    row = sense_agreement(table, 99, 1).row(0, named=True)
    assert row["accuracy"] is None
    assert row["majority_baseline"] is None
    assert row["n_gold"] == 0
    assert row["kappa"] is not None


def test_row_order_does_not_matter():
    table = simulated()
    shuffled = table.sample(fraction=1, shuffle=True, seed=4)
    assert sense_agreement(table, 99, 1).equals(sense_agreement(shuffled, 99, 1))
