"""Senses can be told from context, but not trivially, and the controls are usable."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from medsae.notes.synthetic import SyntheticCorpus, generate_corpus
from medsae.notes.synthetic.labels import SENSE_LABEL, TERM_FORMS, TERM_OF_FORM

CONFIG = Path(__file__).parents[2] / "config"
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|[\r\n]+")


@pytest.fixture(scope="module")
def study() -> SyntheticCorpus:
    return generate_corpus(600, 0, "study")


def sentence_without_term(text: str, start: int, end: int, term: str) -> str:
    cuts = [(0, 0), *(match.span() for match in SENTENCE_END.finditer(text)), (len(text),) * 2]
    begin = max(cut_end for _, cut_end in cuts if cut_end <= start)
    finish = min(cut_start for cut_start, _ in cuts if cut_start >= end)
    forms = "|".join(TERM_FORMS[term])
    return re.sub(rf"\b(?:{forms})\b", " ", text[begin:finish], flags=re.IGNORECASE)


def bag_of_words_accuracy(corpus: SyntheticCorpus, term: str) -> float:
    """Patient-disjoint accuracy of a logistic regression on the sentence without the term."""
    rows = corpus.senses.filter(pl.col("term") == term).join(corpus.notes, on="doc_id")
    sentences = [
        sentence_without_term(row["text"], row["start"], row["end"], term)
        for row in rows.iter_rows(named=True)
    ]
    senses = rows["sense"].to_numpy()
    predicted = cross_val_predict(
        make_pipeline(CountVectorizer(), LogisticRegression(solver="liblinear")),
        np.array(sentences),
        senses,
        groups=rows["patient_id"].to_numpy(),
        cv=GroupKFold(5),
    )
    return float(np.mean(predicted == senses))


def test_bag_of_words_does_better_than_chance_but_never_perfectly(
    study: SyntheticCorpus,
) -> None:
    accuracy = {term: bag_of_words_accuracy(study, term) for term in TERM_FORMS}
    assert all(0.6 < value < 0.99 for value in accuracy.values()), accuracy
    assert 0.7 < np.mean(list(accuracy.values())) < 0.95, accuracy


def test_controls_are_frequent_and_spread_over_patients(study: SyntheticCorpus) -> None:
    controls = pl.read_csv(CONFIG / "controls.csv")["term"].to_list()
    assert len(controls) == len(set(controls)) >= 24
    assert {"hypertension", "patient", "hospital", "treatment"} <= set(controls)
    assert not set(controls) & set(TERM_OF_FORM)
    for term in controls:
        counted = study.notes.with_columns(
            n=pl.col("text").str.count_matches(rf"(?i)\b{term}s?\b")
        ).filter(pl.col("n") > 0)
        assert counted["n"].sum() >= 30, term
        assert counted["patient_id"].n_unique() >= 15, term


def test_the_lexicon_names_every_gold_sense_and_its_forms() -> None:
    lexicon = pl.read_csv(CONFIG / "lexicon.csv")
    assert lexicon.columns == ["term", "sense", "forms", "domain_regexes", "exclude_regexes"]
    assert set(lexicon.select("term", "sense").iter_rows()) == set(SENSE_LABEL)
    for term, forms in lexicon.select("term", "forms").iter_rows():
        assert tuple(forms.split("|")) == TERM_FORMS[term]


def test_lexicon_cues_mostly_agree_with_gold_and_do_not_settle_everything(
    study: SyntheticCorpus,
) -> None:
    cues: dict[str, list[tuple[str, re.Pattern[str], re.Pattern[str]]]] = {}
    for row in pl.read_csv(CONFIG / "lexicon.csv").iter_rows(named=True):
        for column in ("domain_regexes", "exclude_regexes"):
            for single in row[column].split("|"):
                re.compile(single)  # a bar inside a cue would be cut here
        cues.setdefault(row["term"], []).append(
            (
                row["sense"],
                re.compile(row["domain_regexes"], re.IGNORECASE),
                re.compile(row["exclude_regexes"], re.IGNORECASE),
            )
        )
    text = dict(study.notes.select("doc_id", "text").iter_rows())
    right = wrong = 0
    for doc_id, start, end, term, sense in study.senses.iter_rows():
        window = text[doc_id][max(0, start - 100) : end + 100]
        told = [
            name
            for name, domain, exclude in cues[term]
            if domain.search(window) and not exclude.search(window)
        ]
        right += told == [sense]
        wrong += len(told) == 1 and told != [sense]
    assert right / (right + wrong) > 0.85
    assert 0.6 < (right + wrong) / study.senses.height < 0.98
