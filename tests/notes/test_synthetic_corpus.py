"""The embedded corpus: what it must contain for the polysemy study to mean something."""

import re

import polars as pl
import pytest

from medsae.notes.synthetic import SyntheticCorpus, generate_corpus
from medsae.notes.synthetic.labels import LABELS, SENSE_LABEL, TERM_FORMS, TERM_OF_FORM

MAX_SPAN_WORDS = 12  # the recogniser's limit


@pytest.fixture(scope="module")
def study() -> SyntheticCorpus:
    return generate_corpus(600, 0, "study")


@pytest.fixture(scope="module")
def training() -> SyntheticCorpus:
    return generate_corpus(600, 0, "ner_training")


@pytest.fixture(params=["study", "training"])
def corpus(request: pytest.FixtureRequest) -> SyntheticCorpus:
    return request.getfixturevalue(request.param)


def texts(corpus: SyntheticCorpus) -> dict[str, str]:
    return dict(corpus.notes.select("doc_id", "text").iter_rows())


def test_every_span_and_sense_is_exact(corpus: SyntheticCorpus) -> None:
    text = texts(corpus)
    for doc_id, start, end, surface, _ in corpus.spans.iter_rows():
        assert text[doc_id][start:end] == surface == surface.strip() != ""
    for doc_id, start, end, term, sense in corpus.senses.iter_rows():
        assert text[doc_id][start:end].lower() in TERM_FORMS[term]
        assert (term, sense) in SENSE_LABEL


def test_no_markup_or_slot_survives(corpus: SyntheticCorpus) -> None:
    for text in texts(corpus).values():
        assert not re.search(r"[\[\]{}<>|@]", text)


def test_every_occurrence_of_a_lexicon_term_has_a_gold_sense(corpus: SyntheticCorpus) -> None:
    form = re.compile(rf"\b(?:{'|'.join(TERM_OF_FORM)})\b", re.IGNORECASE)
    found = {
        (doc_id, *match.span())
        for doc_id, text in texts(corpus).items()
        for match in form.finditer(text)
    }
    assert found == set(corpus.senses.select("doc_id", "start", "end").iter_rows())


def test_spans_do_not_overlap_and_are_short(corpus: SyntheticCorpus) -> None:
    ordered = corpus.spans.sort("doc_id", "start").with_columns(
        previous=pl.col("end").shift(1).over("doc_id")
    )
    assert ordered.filter(pl.col("previous") > pl.col("start")).is_empty()
    assert ordered["text"].str.split(" ").list.len().max() <= MAX_SPAN_WORDS


def test_all_sixteen_labels_occur_often(corpus: SyntheticCorpus) -> None:
    counts = dict(corpus.spans["label"].value_counts().iter_rows())
    assert set(counts) == set(LABELS.values())
    assert min(counts.values()) >= 50


def test_the_span_over_a_term_has_the_label_of_its_sense(corpus: SyntheticCorpus) -> None:
    covered = corpus.senses.join(corpus.spans, on="doc_id", suffix="_span").filter(
        (pl.col("start_span") <= pl.col("start")) & (pl.col("end") <= pl.col("end_span"))
    )
    assert covered.height == corpus.senses.height
    for term, sense, label in covered.select("term", "sense", "label").iter_rows():
        assert label == LABELS[SENSE_LABEL[term, sense]]


def test_every_sense_is_frequent_and_spread_over_patients(corpus: SyntheticCorpus) -> None:
    counts = (
        corpus.senses.join(corpus.notes, on="doc_id")
        .group_by("term", "sense")
        .agg(pl.len().alias("n"), pl.col("patient_id").n_unique().alias("patients"))
    )
    assert set(counts.select("term", "sense").iter_rows()) == set(SENSE_LABEL)
    assert counts["n"].min() >= 30
    assert counts["patients"].min() >= 15


def test_notes_are_varied_and_of_clinical_length(corpus: SyntheticCorpus) -> None:
    exact = [len(text.split()) for text in corpus.notes["text"]]
    assert corpus.notes.height == 600
    assert min(exact) >= 80 and max(exact) <= 300
    assert corpus.notes["specialty"].n_unique() >= 10
    assert corpus.notes["note_type"].n_unique() >= 6
    assert 200 <= corpus.notes["patient_id"].n_unique() <= 300
    assert corpus.notes["text"].n_unique() == 600
    joined = "".join(corpus.notes["text"])
    assert {"°", "µ", "≥", "é", "\r"} <= set(joined)


def test_the_roles_share_no_patient_no_document_and_no_note(
    study: SyntheticCorpus, training: SyntheticCorpus
) -> None:
    for column in ("doc_id", "patient_id", "text"):
        assert not set(study.notes[column]) & set(training.notes[column])


def test_the_same_seed_gives_the_same_corpus_and_another_seed_another(
    study: SyntheticCorpus,
) -> None:
    again, other = generate_corpus(600, 0, "study"), generate_corpus(600, 1, "study")
    assert again.notes.equals(study.notes)
    assert again.spans.equals(study.spans)
    assert again.senses.equals(study.senses)
    assert not set(other.notes["text"]) & set(study.notes["text"])


@pytest.mark.parametrize("n_notes", [1, 2, 37])
def test_the_requested_number_of_notes_is_written(n_notes: int) -> None:
    notes = generate_corpus(n_notes, 5, "study").notes
    assert notes.height == n_notes == notes["doc_id"].n_unique()


def test_length_bounds_hold_for_other_seeds() -> None:
    for seed in range(1, 4):
        for text in generate_corpus(300, seed, "ner_training").notes["text"]:
            assert 80 <= len(text.split()) <= 300


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="n_notes"):
        generate_corpus(0, 0, "study")
    with pytest.raises(ValueError, match="role"):
        generate_corpus(5, 0, "test")  # type: ignore[arg-type]
