"""The parts of the generator: markup, banks, slots and files."""

import json
import random
import re
from pathlib import Path

import polars as pl
import pytest

from medsae.notes.synthetic import generate_corpus, write_corpus
from medsae.notes.synthetic.banks import ROLES, read_groups, sentence_groups, term_bank
from medsae.notes.synthetic.labels import SENSE_LABEL, TERM_FORMS
from medsae.notes.synthetic.markup import compile_markup
from medsae.notes.synthetic.profiles import PROFILES
from medsae.notes.synthetic.slots import fill, vocabulary

FACTS = dict.fromkeys(
    ["age", "he", "He", "his", "him", "himself", "man", "spouse", "cr", "diagnosis"], "x"
)


def test_markup_compiles_to_text_with_offsets() -> None:
    passage = compile_markup("Old [acute renal <failure>|@], on [iron|MED].", "renal")
    assert passage.text == "Old acute renal failure, on iron."
    assert passage.spans == [
        (4, 23, "renal or kidney disorder"),
        (28, 32, "medication or therapeutic agent"),
    ]
    assert passage.senses == [(16, 23, "failure", "renal")]


def test_joined_passages_keep_their_offsets() -> None:
    whole = compile_markup("[<Block>|@] on ECG. ", "cardiac")
    whole.append(compile_markup("[iron|MED]"))
    start, end, _ = whole.spans[1]
    assert whole.text[start:end] == "iron"


@pytest.mark.parametrize(
    "broken",
    ["[open", "closed]", "[[a|MED]|MED]", "[a|NOPE]", "[a|@]", "<notaterm>", "<block>"],
)
def test_broken_markup_is_refused(broken: str) -> None:
    with pytest.raises(ValueError):
        compile_markup(broken)


def test_every_sentence_of_every_bank_compiles_for_both_roles() -> None:
    rng = random.Random(0)
    for role in ROLES:
        for term in TERM_FORMS:
            bank = term_bank(term, role)
            for sense, sentences in bank.senses.items():
                assert (term, sense) in SENSE_LABEL
                lines = [sentence.marked for sentence in sentences]
                for line in [*lines, *bank.neutral]:
                    for _ in range(5):
                        passage = compile_markup(fill(line, rng, dict(FACTS)), sense)
                        assert passage.senses, line
        for sentences in sentence_groups("fillers", role).values():
            for sentence in sentences:
                assert not compile_markup(fill(sentence.marked, rng, dict(FACTS))).senses


def test_every_sense_has_at_least_twenty_templates() -> None:
    for term, sense in SENSE_LABEL:
        groups = read_groups(f"terms/{term}")
        assert len(set(groups[sense])) >= 20
        assert len(set(groups["neutral"])) >= 8


def test_each_role_has_sentences_that_the_other_never_sees() -> None:
    for term in TERM_FORMS:
        study, training = term_bank(term, "study"), term_bank(term, "ner_training")
        for sense in study.senses:
            assert set(study.senses[sense]) - set(training.senses[sense])
            assert set(training.senses[sense]) - set(study.senses[sense])


def test_profiles_only_name_known_senses_and_filled_specialties() -> None:
    fillers = read_groups("fillers")
    pairs = {pair for profile in PROFILES for pair in profile.pairs} | {"discharge/administrative"}
    assert pairs == {f"{term}/{sense}" for term, sense in SENSE_LABEL}
    assert all(profile.specialty in fillers for profile in PROFILES)


def test_kept_slots_stay_and_others_vary() -> None:
    rng, facts = random.Random(1), {}
    assert vocabulary()["side"][1]
    assert len({fill("{side}", rng, facts) for _ in range(30)}) == 1
    assert len({fill("{n:1-9}", rng, facts) for _ in range(30)}) > 3
    assert re.fullmatch(r"[12]\.\d", fill("{d:1.0-2.9}", rng, facts))


def test_an_unknown_slot_is_an_error() -> None:
    with pytest.raises(KeyError):
        fill("{nonesuch}", random.Random(0), {})


def test_files_round_trip_with_exact_offsets(tmp_path: Path) -> None:
    corpus = generate_corpus(60, 3, "study")
    notes, spans, senses = (tmp_path / name for name in ("n.csv", "s.jsonl", "t.csv"))
    write_corpus(corpus, notes, spans, senses)
    back = pl.read_csv(notes)
    assert back.equals(corpus.notes)
    assert any("\r\n" in text for text in back["text"])
    assert pl.read_csv(senses).equals(corpus.senses)
    text = dict(back.select("doc_id", "text").iter_rows())
    rows = [json.loads(line) for line in spans.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == corpus.spans.height
    for row in rows:
        assert list(row) == ["doc_id", "start", "end", "entity_group", "text", "score"]
        assert text[row["doc_id"]][row["start"] : row["end"]] == row["text"]
        assert row["score"] == 1.0
