"""Find entity spans in notes of any length with GLiNER.

Notes are cut into overlapping chunks of words; the chunks of many notes share a forward pass,
longest first, so that little is padding; what the chunks of a note propose becomes one flat set
of spans (``medsae.ner.flat``).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medsae.io import UserError, progress
from medsae.ner.flat import Candidate, drop_cut, flatten
from medsae.ner.model import token_limit
from medsae.ner.span_scores import encode_batch, has_marker_head, represent, span_mask, span_scores
from medsae.ner.words import Words, chunk_bounds, split_words

WORDS_IN_MEMORY = 500_000
"""Notes are read until they have this many words, and their chunks sorted together."""

LOGIT_DECIMALS = 3
"""Digits of a float32 logit that do not depend on which chunks shared a forward pass."""

SCORE_DECIMALS = 4
"""Digits of the scores that are written."""

Chunk = tuple[int, int, int, int]  # note, index within the note, first word, end word


def recognise_entities(
    notes: Iterable[tuple[str, str]],
    model: Any,
    labels: Sequence[str],
    min_score: float,
    chunk_words: int,
    overlap_words: int,
    batch_size: int,
    n_notes: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Spans of ``notes`` (doc_id, text), with the keys ``medsae.ner.SPAN_KEYS``.

    They come in the order of the notes, then by offset, and do not overlap. ``batch_size``
    chunks of ``chunk_words`` words make one forward pass; of shorter chunks it holds more.
    Runs on the device of ``model``, in bfloat16 on a GPU.

    Raises ``UserError`` if the labels leave the encoder no room for text.
    """
    labels = list(dict.fromkeys(labels))
    finder = _Finder(model, labels, min_score, chunk_words, overlap_words, batch_size)
    block: list[tuple[str, str, Words]] = []
    n_words = 0
    for doc_id, text in progress(notes, "notes read for entities", n_notes):
        words = split_words(text, model.data_processor.words_splitter)
        if block and n_words + len(words) > WORDS_IN_MEMORY:
            yield from finder.spans(block)
            block, n_words = [], 0
        block.append((doc_id, text, words))
        n_words += len(words)
    if block:
        yield from finder.spans(block)


class _Finder:
    """What stays the same for all blocks of notes: model, labels and sizes."""

    def __init__(
        self,
        model: Any,
        labels: list[str],
        min_score: float,
        chunk_words: int,
        overlap_words: int,
        batch_size: int,
    ) -> None:
        self.model = model.eval()
        self.labels = labels
        self.min_score = min_score
        self.max_words = min(chunk_words, int(model.config.max_len))
        self.overlap = min(overlap_words, self.max_words - 1)
        self.batch_words = batch_size * self.max_words
        self.max_tokens = _room_for_text(model, labels)

    def spans(self, notes: list[tuple[str, str, Words]]) -> Iterator[dict[str, Any]]:
        bounds = [
            chunk_bounds(len(words), self.max_words, self.overlap, *self._tokens(text, words))
            for _, text, words in notes
        ]
        proposals = defaultdict(list)
        for batch in progress(self._batches(bounds), "batches of chunks"):
            chunks = [
                notes[note][2].texts(notes[note][1], begin, end) for note, _, begin, end in batch
            ]
            for (note, index, begin, _), found in zip(batch, self._propose(chunks), strict=True):
                for first, last, label, score in found:
                    span = Candidate(begin + first, begin + last, label, score)
                    proposals[note].append((index, span))
        for note, (doc_id, text, words) in enumerate(notes):
            for span in flatten(drop_cut(proposals[note], bounds[note])):
                start, end = int(words.starts[span.first]), int(words.ends[span.last])
                yield {
                    "doc_id": doc_id,
                    "start": start,
                    "end": end,
                    "text": text[start:end],
                    "entity_group": span.label,
                    "score": round(span.score, SCORE_DECIMALS),
                }

    def _tokens(self, text: str, words: Words) -> tuple[Any, ...]:
        if self.max_tokens is None or not len(words):
            return ()
        encoded = self.model.data_processor.transformer_tokenizer(
            words.texts(text, 0, len(words)), add_special_tokens=False, verbose=False
        )
        counts = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)
        return counts, self.max_tokens

    def _batches(self, bounds: list[list[tuple[int, int]]]) -> list[list[Chunk]]:
        chunks = [
            (note, index, begin, end)
            for note, of_note in enumerate(bounds)
            for index, (begin, end) in enumerate(of_note)
        ]
        chunks.sort(key=lambda chunk: chunk[2] - chunk[3])  # longest first; the sort is stable
        batches: list[list[Chunk]] = []
        for chunk in chunks:
            if batches:
                longest = batches[-1][0][3] - batches[-1][0][2]
                if (len(batches[-1]) + 1) * longest <= self.batch_words:
                    batches[-1].append(chunk)
                    continue
            batches.append([chunk])
        return batches

    @torch.inference_mode()
    def _propose(self, chunks: list[list[str]]) -> list[list[tuple[int, int, str, float]]]:
        """For each chunk its spans above the threshold: first word, last word, label, score."""
        if not has_marker_head(self.model):
            return self._propose_by_gliner(chunks)
        batch = encode_batch(self.model, chunks, self.labels)
        on_gpu = self.model.device.type == "cuda"
        with torch.autocast("cuda", torch.bfloat16) if on_gpu else nullcontext():
            logits = span_scores(self.model, *represent(self.model, batch))
        scores = _scores(logits)
        possible = span_mask(batch["text_lengths"], scores.shape[1], scores.shape[2])
        found = (scores >= self.min_score) & possible.unsqueeze(-1)
        proposals: list[list[tuple[int, int, str, float]]] = [[] for _ in chunks]
        where = found.nonzero().tolist()
        for (chunk, first, width, label), score in zip(where, scores[found].tolist(), strict=True):
            proposals[chunk].append((first, first + width, self.labels[label], score))
        return proposals

    def _propose_by_gliner(
        self, chunks: list[list[str]]
    ) -> list[list[tuple[int, int, str, float]]]:
        """The same for any other GLiNER, with its own forward pass and decoder."""
        inputs = [{"tokenized_text": chunk, "ner": None} for chunk in chunks]
        batch = self.model.collate_batch(inputs, self.labels)
        output = self.model.run_batch(batch, threshold=self.min_score)
        decoded = self.model.decode_batch(output, batch, threshold=self.min_score, flat_ner=True)
        return [
            [
                (
                    span.start,
                    span.end,
                    span.entity_type,
                    _scores(torch.logit(torch.tensor(span.score))).item(),
                )
                for span in spans
            ]
            for spans in decoded
        ]


def _scores(logits: Tensor) -> Tensor:
    """What spans are ranked by: float32, and the same whichever chunks share a forward pass.

    Sigmoids are taken in float64, because the last bit of one in float32 hangs on its place in the
    batch; then rounded to float32, so that scores tie where GLiNER's do.
    """
    return torch.round(logits.float(), decimals=LOGIT_DECIMALS).double().sigmoid().float()


def _room_for_text(model: Any, labels: list[str]) -> int | None:
    """Subword tokens left for text behind the label prompt; None if nothing is cut off."""
    limit = token_limit(model)
    if limit is None:
        return None
    prompt = model.data_processor.prepare_inputs([[]], labels)[0][0]
    tokenizer = model.data_processor.transformer_tokenizer
    n_prompt = len(tokenizer(prompt, is_split_into_words=True, verbose=False)["input_ids"])
    if limit - n_prompt < limit // 4:
        raise UserError(
            f"ner.labels: the {len(labels)} labels fill {n_prompt} of the {limit} tokens that the "
            "NER model reads at once; request fewer or shorter labels"
        )
    return limit - n_prompt
