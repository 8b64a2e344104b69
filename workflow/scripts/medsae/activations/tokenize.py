"""Whole documents to tokens with character offsets.

Offsets are Python string indices into the document and satisfy, for any Unicode text:

* they lie within the text, and neither starts nor ends ever decrease from one token to
  the next;
* with a tokenizer that does not rewrite its input (all byte-level ones: Llama 3, SmolLM2,
  Qwen2, GPT-2), the ranges cover the text without gaps, and a token made of whole
  characters has exactly ``text[char_start:char_end]`` as its text, leading space included;
* a character that is split over several tokens (an emoji, by bytes) is in the range of
  each of them: such ranges overlap, and hold more than the token's own bytes; bytes that
  the vocabulary lacks become its unknown token, with the range of their characters;
* a tokenizer that rewrites its input (lower-casing, Unicode normal forms) yields offsets
  into the text as it was, with gaps where it dropped characters.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from tokenizers import Encoding, Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from medsae.activations.columns import TOKENS
from medsae.weights.source import resolve_source
from medsae.io import UserError, atomic_path, progress

DOCUMENTS_PER_BATCH = 128
ROWS_PER_GROUP = 1 << 18


def load_tokenizer(source: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a model; raises ``UserError`` if it has none."""
    found = resolve_source(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            found.name, trust_remote_code=trust_remote_code, **found.arguments
        )
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"{source} has no tokenizer that transformers can load.") from error
    if not tokenizer.is_fast:
        raise UserError(
            f"The tokenizer of {source} does not report character offsets: only models with a "
            "fast tokenizer (tokenizer.json) can be studied."
        )
    return tokenizer


def document_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """The tokenizer behind ``tokenizer``, set to read documents.

    No special tokens, neither added nor recognised in the text (a note that spells one out
    is a note, not a command); no truncation or padding; offsets with the leading space.
    """
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    backend.post_processor = None  # it would add special tokens and trim offsets
    return backend


def tokenize_documents(
    tokenizer: Tokenizer, texts: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens of ``texts``, one after another.

    Returns counts int64 [n_documents], ids int32 [n_tokens] and offsets uint32
    [n_tokens, 2] (start, exclusive end). Raises ``ValueError`` if the tokenizer breaks the
    order of offsets, so that spans could not be aligned.
    """
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    counts = np.array([len(encoding) for encoding in encodings], dtype=np.int64)
    n_tokens = int(counts.sum())
    ids = np.fromiter(chain.from_iterable(e.ids for e in encodings), np.int32, n_tokens)
    offsets = np.fromiter(_flat_offsets(encodings), np.uint32, 2 * n_tokens).reshape(-1, 2)
    _check_offsets(texts, counts, offsets.astype(np.int64))
    return counts, ids, offsets


def tokenize_notes(notes: str | Path, shard: str, tokenizer: Tokenizer, path: str | Path) -> int:
    """Write the tokens of one shard of ``notes`` to the Parquet file ``path``.

    Columns: ``columns.TOKENS``. Notes are streamed. Returns the number of tokens.
    """
    n_tokens = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, TOKENS) as writer:
        pending: list[pa.Table] = []
        for batch in progress(_notes_of_shard(notes, shard), f"{shard}: batches of notes"):
            pending.append(_token_table(tokenizer, batch))
            n_tokens += pending[-1].num_rows
            if sum(table.num_rows for table in pending) >= ROWS_PER_GROUP:
                writer.write_table(pa.concat_tables(pending))
                pending = []
        if pending:
            writer.write_table(pa.concat_tables(pending))
    return n_tokens


def _notes_of_shard(notes: str | Path, shard: str) -> Iterator[pa.RecordBatch]:
    scanner = pyarrow.dataset.dataset(notes, format="parquet").scanner(
        columns=["doc_id", "patient_id", "text"],
        filter=pyarrow.dataset.field("shard") == shard,
        batch_size=DOCUMENTS_PER_BATCH,
    )
    return (batch for batch in scanner.to_batches() if batch.num_rows)


def _token_table(tokenizer: Tokenizer, notes: pa.RecordBatch) -> pa.Table:
    counts, ids, offsets = tokenize_documents(tokenizer, notes["text"].to_pylist())
    document = pa.array(np.repeat(np.arange(len(counts)), counts))
    first = np.cumsum(counts) - counts
    columns = {
        "doc_id": notes["doc_id"].cast(pa.string()).take(document),
        "patient_id": notes["patient_id"].cast(pa.string()).take(document),
        "token_index": (np.arange(len(ids)) - np.repeat(first, counts)).astype(np.uint32),
        "token_id": ids,
        "char_start": offsets[:, 0],
        "char_end": offsets[:, 1],
    }
    return pa.table(columns, schema=TOKENS)


def _flat_offsets(encodings: Iterable[Encoding]) -> Iterator[int]:
    return chain.from_iterable(chain.from_iterable(e.offsets for e in encodings))


def _check_offsets(texts: list[str], counts: np.ndarray, offsets: np.ndarray) -> None:
    lengths = np.repeat(np.array([len(text) for text in texts], dtype=np.int64), counts)
    same_document = np.diff(np.repeat(np.arange(len(counts)), counts)) == 0
    steps = np.diff(offsets, axis=0)[same_document]
    if (
        (offsets[:, 0] > offsets[:, 1]).any()
        or (offsets[:, 1] > lengths).any()
        or (steps < 0).any()
    ):
        raise ValueError(
            "the tokenizer's character offsets are not in reading order: spans of text cannot be "
            "aligned with its tokens"
        )
