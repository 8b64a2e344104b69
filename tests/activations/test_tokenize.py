"""Offsets hold for any text: every token knows which characters it came from."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer

from medsae.activations.columns import TOKENS
from medsae.activations.tokenize import tokenize_documents, tokenize_notes

ADVERSARIAL = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            [
                *("👩‍⚕️", "🏥", "🇩🇪", "👍🏽", "e\u0301", "n\u0303o", "\u0301", "ß", "İ", "ﬁ", "Å"),
                *("\r\n", "\n\n", "\r", "\t", "\u00a0", "\u2003", "\u200b", "\u200d", "\ufeff"),
                *("  ", " renal", "failure", "3.14", "mg/dL", "\x00", "\x1f", "\ufffd", "漢字"),
                *("مرحبا", "שלום", "<|im_start|>", "<|endoftext|>", "[CLS]", "[SEP]", "##ed"),
            ]
        ),
        max_size=12,
    ).map("".join),
)


def byte_alphabet() -> dict[str, int]:
    """The printable stand-in of each byte in a byte-level vocabulary (the GPT-2 table)."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in kept]
    return {chr(byte): byte for byte in kept} | {
        chr(256 + number): byte for number, byte in enumerate(others)
    }


BYTES = byte_alphabet()


def tokens_are_known(tokenizer: Tokenizer, ids: np.ndarray) -> np.ndarray:
    """False for the token that stands for bytes which the vocabulary lacks."""
    return ids != tokenizer.token_to_id(tokenizer.model.unk_token)


def token_bytes(tokenizer: Tokenizer, token_id: int) -> bytes:
    return bytes(BYTES[char] for char in tokenizer.id_to_token(token_id))


@settings(max_examples=150, deadline=None)
@given(text=ADVERSARIAL)
def test_byte_level_offsets_reproduce_any_text(smollm_tokenizer: Tokenizer, text: str):
    counts, ids, offsets = tokenize_documents(smollm_tokenizer, [text])
    assert counts.tolist() == [len(ids)]
    covered = {char for start, end in offsets.tolist() for char in range(start, end)}
    assert covered == set(range(len(text)))

    known = tokens_are_known(smollm_tokenizer, ids)
    pieces = [
        token_bytes(smollm_tokenizer, int(i)) if k else b"" for i, k in zip(ids, known, strict=True)
    ]
    for piece, (start, end) in zip(pieces, offsets.tolist(), strict=True):
        assert piece in text[start:end].encode()
    if known.all():
        assert b"".join(pieces) == text.encode()
        begin = 0
        for piece, (start, end) in zip(pieces, offsets.tolist(), strict=True):
            before, after = len(text[:start].encode()), len(text[:end].encode())
            # the characters that the token's bytes touch, and none more
            assert 0 <= begin - before < 4
            assert 0 <= after - begin - len(piece) < 4
            begin += len(piece)


@settings(max_examples=150, deadline=None)
@given(text=ADVERSARIAL)
def test_rewriting_tokenizer_offsets_stay_in_reading_order(
    wordpiece_tokenizer: Tokenizer, text: str
):
    _, ids, offsets = tokenize_documents(wordpiece_tokenizer, [text])
    steps = np.diff(offsets.astype(int), axis=0)
    assert (steps >= 0).all()
    assert (offsets[:, 0] <= offsets[:, 1]).all() and (offsets <= len(text)).all()
    if text.isascii():
        for index, (start, end) in zip(ids, offsets.tolist(), strict=True):
            piece = wordpiece_tokenizer.id_to_token(int(index)).removeprefix("##")
            if piece != "[UNK]":
                kept = "".join(char for char in text[start:end] if char.isprintable())
                assert kept.lower() == piece or text[start:end] == "##" + piece


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(ADVERSARIAL, max_size=5))
def test_documents_do_not_see_each_other(smollm_tokenizer: Tokenizer, texts: list[str]):
    counts, ids, offsets = tokenize_documents(smollm_tokenizer, texts)
    alone = [tokenize_documents(smollm_tokenizer, [text]) for text in texts]
    assert counts.tolist() == [int(c[0]) for c, _, _ in alone]
    assert ids.tolist() == [index for _, i, _ in alone for index in i.tolist()]
    assert offsets.tolist() == [pair for _, _, o in alone for pair in o.tolist()]


def test_tokens_carry_their_leading_space(smollm_tokenizer: Tokenizer):
    text = "Acute renal failure"
    _, _, offsets = tokenize_documents(smollm_tokenizer, [text])
    pieces = [text[start:end] for start, end in offsets]
    assert "".join(pieces) == text
    assert " failure" in pieces


def test_spelled_out_special_tokens_are_plain_text(smollm_tokenizer: Tokenizer):
    bos = smollm_tokenizer.token_to_id("<|im_start|>")
    _, ids, offsets = tokenize_documents(smollm_tokenizer, ["note <|im_start|> text"])
    assert bos is not None and bos not in ids.tolist()
    assert offsets[-1].tolist() == [17, 22]


def test_long_documents_are_not_truncated(wordpiece_tokenizer: Tokenizer):
    # this tokenizer's own settings cut at 128 tokens
    counts, _, offsets = tokenize_documents(wordpiece_tokenizer, ["pain " * 1000])
    assert counts.tolist() == [1000]
    assert offsets[-1].tolist() == [4995, 4999]


def test_token_table_has_the_promised_schema(
    smollm_tokenizer: Tokenizer, notes: Path, tmp_path: Path
):
    path = tmp_path / "train-00000.parquet"
    n_tokens = tokenize_notes(notes, "train-00000", smollm_tokenizer, path)
    tokens = pl.read_parquet(path)
    assert tokens.height == n_tokens
    assert tokens.columns == TOKENS.names
    assert tokens["doc_id"].unique(maintain_order=True).to_list() == ["a", "b", "c"]
    assert tokens.filter(doc_id="b")["patient_id"].unique().to_list() == ["p1"]
    for (doc_id,), part in tokens.group_by(["doc_id"], maintain_order=True):
        assert part["token_index"].to_list() == list(range(part.height))
        text = pl.read_parquet(notes).filter(doc_id=doc_id)["text"].item()
        assert part["char_end"].max() == len(text)


def test_offsets_out_of_order_are_refused(smollm_tokenizer: Tokenizer):
    class Reversed:
        def encode_batch(self, texts: list[str], add_special_tokens: bool) -> list[Encoding]:
            encoding = smollm_tokenizer.encode(texts[0], add_special_tokens=add_special_tokens)
            tail = smollm_tokenizer.encode("", add_special_tokens=False)
            tail.pad(1)  # a token at (0, 0) after the others
            return [Encoding.merge([encoding, tail], growing_offsets=False)]

    with pytest.raises(ValueError, match="reading order"):
        tokenize_documents(Reversed(), ["renal failure"])
