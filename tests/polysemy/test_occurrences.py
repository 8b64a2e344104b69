import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsae.config.ner_section import NER_LABELS
from medsae.io import UserError
from medsae.polysemy.columns import LEXICON, OCCURRENCES
from medsae.polysemy.lexicon import prepare_lexicon, split_list
from medsae.polysemy.occurrences import find_occurrences, form_finder, read_gold_senses

FORMS = {
    "discharge": "discharge",
    "discharged": "discharge",
    "mass": "mass",
    "masses": "mass",
    "mass effect": "mass effect",
    "x-ray": "x-ray",
}
SENSES = [
    ("discharge", "administrative", "discharge|discharged", "home", "", "event", "polysemous"),
    ("discharge", "clinical", "discharge|discharged", "purulent", "", "fluid", "polysemous"),
    ("biopsy", "", "biopsy|biopsies", "", "", "", "control"),
]


@pytest.fixture
def lexicon():
    return pl.DataFrame(SENSES, schema=dict.fromkeys(LEXICON, pl.String), orient="row")


@pytest.fixture
def find(tmp_path, lexicon):
    def run(texts, spans=(), gold=None, sense_source="gold", row_group_size=1):
        notes = pl.DataFrame(
            {
                "doc_id": list(texts),
                "patient_id": [f"patient of {doc}" for doc in texts],
                "split": ["train"] * len(texts),
                "text": list(texts.values()),
            }
        )
        notes.write_parquet(tmp_path / "notes.parquet", row_group_size=row_group_size)
        schema = {"doc_id": pl.String, "start": pl.Int64, "end": pl.Int64}
        schema |= {"entity_group": pl.String, "score": pl.Float32}
        pl.DataFrame(list(spans), schema=schema, orient="row").write_parquet(
            tmp_path / "spans.parquet"
        )
        if gold is not None:
            names = ("doc_id", "start", "end", "term", "sense")
            gold = pl.DataFrame(gold, schema=list(names), orient="row")
        return find_occurrences(
            tmp_path / "notes.parquet", lexicon, tmp_path / "spans.parquet", gold, sense_source
        )

    return run


def test_every_shipped_sense_is_reached_by_a_cue_and_by_a_label(tmp_path, pytestconfig):
    config = pytestconfig.rootpath / "config"
    names = ("lexicon.csv", "controls.csv", "sense_labels.yaml")
    lexicon = prepare_lexicon(*(config / name for name in names), list(NER_LABELS))
    texts, spans = {}, []
    for row in lexicon.filter(pl.col("kind") == "polysemous").iter_rows(named=True):
        form = split_list(row["forms"])[-1]
        for cue in split_list(row["domain_regexes"]):
            word = re.sub(r"\\[bw]|\*", "", cue)
            if word.isalpha():  # most are a word, or the beginning of one
                texts[f"{row['term']}|{row['sense']}|cue|{word}"] = f"{word} {form}"
        for label in split_list(row["ner_labels"]):
            doc = f"{row['term']}|{row['sense']}|label|{label}"
            texts[doc] = form
            spans.append((doc, 0, len(form), label, 0.9))
    docs = list(texts)
    notes = pl.DataFrame({"doc_id": docs, "patient_id": docs, "text": list(texts.values())})
    notes.with_columns(split=pl.lit("train")).write_parquet(tmp_path / "notes.parquet")
    columns = ["doc_id", "start", "end", "entity_group", "score"]
    pl.DataFrame(spans, schema=columns, orient="row").write_parquet(tmp_path / "spans.parquet")
    found = find_occurrences(
        tmp_path / "notes.parquet", lexicon, tmp_path / "spans.parquet", None, "resolved"
    )
    meant = pl.col("doc_id").str.split("|").list
    found = found.with_columns(meant=meant.get(1), evidence=meant.get(2))
    assert found.height >= len(docs)
    for evidence, column in (("cue", "cue_sense"), ("label", "ner_sense")):
        said = found.filter(pl.col("evidence") == evidence).drop_nulls(column)
        # a label or a cue of two senses says nothing; none says the other sense
        assert (said[column] == said["meant"]).all()
        assert (said["sense"] == said["meant"]).all()
        assert said.select("lemma", "meant").n_unique() == 30


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Discharge DISCHARGED", ["discharge", "discharge"]),
        ("discharges predischarge massive amass mass_", []),
        ("mass, masses; (mass)", ["mass"] * 3),
        ("mass effect on the mass", ["mass effect", "mass"]),
        ("mass \t\r\n effect", ["mass effect"]),
        ("mass effects", ["mass"]),
        ("x-ray post-discharge", ["x-ray", "discharge"]),
        ("xray", []),
        ("mass\u0301 mas\u0301s \u0301mass", []),
        ("🙂mass🙂 “mass”", ["mass", "mass"]),
    ],
)  # fmt: skip
def test_forms_are_whole_words_and_the_longest_counts(text, expected):
    assert [lemma for _, _, lemma in form_finder(FORMS)(text)] == expected


@given(
    st.lists(
        st.one_of(
            st.sampled_from(list(FORMS)),
            st.text(st.characters(codec="utf-8"), max_size=8),
            st.sampled_from(["\r\n", "\t", "é", "e\u0301", "👩‍⚕️", "İ", "ß", "\u2028", "ſ"]),
        ),
        max_size=15,
    )
)
def test_offsets_cut_out_the_form_in_any_unicode(pieces):
    text = " ".join(pieces)
    for start, end, lemma in form_finder(FORMS)(text):
        words = " ".join(text[start:end].split()).casefold()
        assert FORMS[words] == lemma


def test_table_of_a_planted_corpus(find):
    texts = {
        "b": "Sent home after discharge.",
        "a": "🙂 Purulent DISCHARGE.\r\nBiopsies taken",
    }
    table = find(texts)
    assert table.columns == [*OCCURRENCES, "resolved_sense"]
    assert table.schema["occurrence_id"] == pl.UInt32
    rows = table.select("doc_id", "surface", "char_start", "char_end", "kind", "sense").rows()
    assert rows == [
        ("a", "DISCHARGE", 11, 20, "polysemous", "clinical"),
        ("a", "Biopsies", 23, 31, "control", None),
        ("b", "discharge", 16, 25, "polysemous", "administrative"),
    ]
    assert all(texts[doc][start:end] == surface for doc, surface, start, end, *_ in rows)


def test_entity_with_the_largest_overlap_speaks_then_the_best_scored(find):
    text = {"a": "the discharge note"}
    spans = [
        ("a", 4, 8, "fluid", 0.99),
        ("a", 0, 18, "event", 0.6),
        ("a", 4, 13, "fluid", 0.5),
        ("a", 13, 18, "fluid", 1.0),
    ]
    row = find(text, spans).row(0, named=True)
    assert row["ner_label"] == "event"
    assert row["ner_score"] == pytest.approx(0.6)
    assert row["ner_sense"] == "administrative"
    assert find(text, [("b", 0, 18, "event", 0.6)]).row(0, named=True)["ner_label"] is None
    assert find(text, [("a", 4, 13, "other", 0.6)]).row(0, named=True)["ner_sense"] is None


def test_labellers_that_disagree_leave_the_sense_open(find):
    row = find({"a": "home, discharge"}, [("a", 6, 15, "fluid", 0.9)]).row(0, named=True)
    assert (row["ner_sense"], row["cue_sense"], row["sense"]) == (
        "clinical",
        "administrative",
        None,
    )


def test_gold_is_matched_by_offsets_and_term(find):
    text = {"a": "home, discharge and discharge"}
    gold = [
        ("a", 5, 12, "discharge", "clinical"),
        ("a", 20, 29, "biopsy", "clinical"),
        ("b", 20, 29, "discharge", "clinical"),
    ]
    table = find(text, gold=gold)
    assert table["gold_sense"].to_list() == ["clinical", None]
    assert table["sense"].to_list() == ["clinical", "administrative"]
    resolver = find(text, gold=gold, sense_source="resolver")
    assert resolver["sense"].to_list() == ["administrative", "administrative"]
    assert resolver["gold_sense"].to_list() == ["clinical", None]


def test_gold_that_is_not_used_is_counted_and_gold_that_is_nowhere_refused(find, caplog):
    text = {"a": "home, discharge and discharge"}
    placed = ("a", 5, 12, "discharge", "clinical")
    elsewhere = ("b", 20, 29, "discharge", "clinical")
    with caplog.at_level("WARNING", "medsae"):
        find(text, gold=[placed])
        assert not caplog.messages
        find(text, gold=[placed, elsewhere])
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("1 of 2 gold senses")
    with pytest.raises(UserError, match="None of the gold senses lies on an occurrence"):
        find(text, gold=[elsewhere])
    assert find({"a": "nothing here"}, gold=[elsewhere]).is_empty()


def test_how_notes_are_cut_into_row_groups_does_not_matter(find):
    texts = {f"d{i}": "home discharge " * (i % 3) + "biopsy" for i in range(20)}
    spans = [(f"d{i}", 5, 14, "event", 0.5) for i in range(0, 20, 2)]
    one = find(texts, spans, row_group_size=1)
    assert one.equals(find(texts, spans, row_group_size=20))
    backwards = dict(reversed(texts.items()))
    assert one.equals(find(backwards, spans[::-1], row_group_size=7))


def test_a_corpus_without_any_term_gives_an_empty_table(find):
    table = find({"a": "nothing here"})
    assert table.is_empty()
    assert table.columns == [*OCCURRENCES, "resolved_sense"]


GOLD = "doc_id,start,end,term,sense\n001,3,12,discharge,clinical\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOLD.replace("term", "word"), r"gold.csv has no column 'term' \(it has doc_id"),
        (GOLD.replace("12", "3"), r"row 1 needs doc_id, start < end"),
        (GOLD.replace("12", "x"), r"row 1 needs doc_id, start < end"),
        (GOLD + "2,1,2,discharge,renal\n", r"row 2: the lexicon has no sense 'renal'"),
    ],
)
def test_gold_that_cannot_be_used_is_refused(tmp_path, lexicon, content, message):
    path = tmp_path / "gold.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_gold_senses(path, lexicon)


def test_document_ids_stay_text(tmp_path, lexicon):
    (tmp_path / "gold.csv").write_text(GOLD)
    assert read_gold_senses(tmp_path / "gold.csv", lexicon)["doc_id"].to_list() == ["001"]
    with pytest.raises(UserError, match="does not exist"):
        read_gold_senses(tmp_path / "none.csv", lexicon)
