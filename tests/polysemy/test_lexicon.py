import polars as pl
import pytest

from medsae.config.ner_section import NER_LABELS
from medsae.io import UserError
from medsae.polysemy.lexicon import (
    plural,
    prepare_lexicon,
    read_lexicon,
    read_sense_labels,
    split_list,
)

HEADER = "term,sense,forms,domain_regexes,exclude_regexes\n"
GOOD = (
    HEADER
    + "discharge,administrative,discharges|discharged,home|rehab,wound\n"
    + "discharge,clinical,discharges,purulent|wound,\n"
)
LABELS = """
senses:
  administrative: [administrative healthcare event, medical procedure or intervention]
  clinical: [bodily fluid or secretion]
"""


@pytest.fixture
def prepare(tmp_path):
    def run(lexicon=GOOD, controls="term\nbiopsy\n", labels=LABELS, requested=NER_LABELS):
        paths = [tmp_path / name for name in ("lexicon.csv", "controls.csv", "labels.yaml")]
        for path, content in zip(paths, (lexicon, controls, labels), strict=True):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return prepare_lexicon(*paths, list(requested))

    return run


def test_every_sense_gets_its_labels_and_every_control_its_plural(prepare, tmp_path):
    table = prepare()
    assert table["kind"].to_list() == ["polysemous", "polysemous", "control"]
    assert table["forms"].to_list()[0] == "discharge|discharges|discharged"
    assert table["ner_labels"].to_list()[1] == "bodily fluid or secretion"
    assert table.row(2, named=True)["forms"] == "biopsy|biopsies"
    table.write_csv(tmp_path / "out.csv")
    assert read_lexicon(tmp_path / "out.csv").equals(table)


def test_entry_of_a_term_replaces_the_general_one(prepare):
    labels = LABELS + "terms:\n  discharge:\n    clinical: [clinical finding or symptom]\n"
    assert prepare(labels=labels)["ner_labels"].to_list()[1] == "clinical finding or symptom"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": "senses:\n  administrative: [administrative healthcare event]\n"},
         r"row 2: the sense 'clinical' of 'discharge' has no NER label"),
        ({"requested": ["administrative healthcare event", "medical procedure or intervention"]},
         r"row 2: .* 'bodily fluid or secretion' .* not requested"),
        ({"labels": "senses:\n  administrative: [medical procedure or intervention]\n"
                    "  clinical: [medical procedure or intervention]\n"},
         r"row 1: the sense 'administrative' of 'discharge' shares all its NER labels"),
        ({"labels": "senses: [a]"}, r"labels.yaml must hold `senses`"),
        ({"labels": "sense: {}"}, r"labels.yaml must hold `senses`"),
        ({"labels": "senses: {"}, r"labels.yaml is not readable YAML"),
        ({"lexicon": GOOD.replace("discharge,clinical,discharges", "mass,clinical,masses")},
         r"row 1: 'discharge' has one sense"),
        ({"lexicon": GOOD.replace("discharge,clinical", "discharge,administrative")},
         r"row 2: the sense 'administrative' of 'discharge' is there twice"),
        ({"lexicon": GOOD + GOOD.removeprefix(HEADER).replace("discharge,", "release,")},
         r"row 3: column forms: 'discharges' already belongs to 'discharge'"),
        ({"lexicon": GOOD.replace("home|rehab", "home(")},
         r"row 1: column domain_regexes is not a regular expression"),
        ({"lexicon": GOOD.replace("home|rehab", "home|")},
         r"row 1: column domain_regexes matches the empty text"),
        ({"lexicon": GOOD.replace("discharge,clinical", "discharge,")},
         r"row 2: the column sense is empty"),
        ({"lexicon": GOOD.replace(",forms", ",form")}, r"no column 'forms' \(it has term, sense"),
        ({"lexicon": GOOD.replace(",wound\n", ",wound,x\n")}, r"row 1 does not have 5 cells"),
        ({"lexicon": HEADER}, r"lexicon.csv has no rows"),
        ({"lexicon": GOOD.encode() + b"\xff\xfe,,,,\n"}, r"lexicon.csv is not UTF-8"),
        ({"controls": "term\ndischarged\n"}, r"row 1: the control 'discharged' is already a term"),
        ({"controls": "term\nbiopsy\nBiopsy\n"}, r"row 2: the control 'Biopsy' is already a term"),
        ({"controls": "term\n \n"}, r"controls.csv: row 1: the column term is empty"),
        ({"controls": "word\nbiopsy\n"}, r"controls.csv has no column 'term'"),
    ],
)  # fmt: skip
def test_what_would_mislead_the_study_is_refused_in_one_sentence(prepare, change, message):
    with pytest.raises(UserError, match=message) as caught:
        prepare(**change)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.csv does not exist"):
        (tmp_path / "labels.yaml").write_text(LABELS)
        prepare_lexicon(tmp_path / "nowhere.csv", "c", tmp_path / "labels.yaml", list(NER_LABELS))
    with pytest.raises(UserError, match=r"nowhere.yaml does not exist"):
        read_sense_labels(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("singular", "expected"),
    [("biopsy", "biopsies"), ("x-ray", "x-rays"), ("abscess", "abscesses"), ("fever", "fevers"),
     ("blood pressure cuff", "blood pressure cuffs")],
)  # fmt: skip
def test_regular_plurals(singular, expected):
    assert plural(singular) == expected


def test_blanks_in_lists_are_dropped():
    assert split_list(" a | b||") == ["a", "b"]


# Every sense that the published lexicon has.
SENSES = {
    "regurgitation": ("cardiac", "GI"),
    "shock": ("cardiovascular", "neurological"),
    "pressure": ("cardiovascular", "neurological"),
    "block": ("cardiac", "neurological"),
    "episode": ("cardiac", "neurological"),
    "mass": ("radiological", "anatomical"),
    "discharge": ("administrative", "clinical"),
    "arrest": ("cardiac", "respiratory"),
    "attack": ("cardiac", "respiratory"),
    "syndrome": ("cardiac", "respiratory"),
    "lesion": ("dermatological", "neurological"),
    "effusion": ("respiratory", "orthopedic"),
    "infiltrate": ("respiratory", "pathological"),
    "failure": ("cardiac", "renal"),
    "insufficiency": ("renal", "endocrine"),
}


def test_the_shipped_labels_reach_every_published_sense(tmp_path, pytestconfig):
    rows = [f"{term},{sense},,x,\n" for term, senses in SENSES.items() for sense in senses]
    (tmp_path / "lexicon.csv").write_text(HEADER + "".join(rows))
    (tmp_path / "controls.csv").write_text("term\nbiopsy\n")
    labels = pytestconfig.rootpath / "config" / "sense_labels.yaml"
    table = prepare_lexicon(
        tmp_path / "lexicon.csv", tmp_path / "controls.csv", labels, list(NER_LABELS)
    )
    assert len(table.filter(pl.col("kind") == "polysemous")) == 30
