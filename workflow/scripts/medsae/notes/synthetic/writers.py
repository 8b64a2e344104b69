"""The corpus as the files the workflow reads."""

import json
import os

from medsae.io import atomic_path
from medsae.notes.synthetic.corpus import SyntheticCorpus

GOLD_SCORE = 1.0


def write_corpus(
    corpus: SyntheticCorpus,
    notes_csv: str | os.PathLike[str],
    spans_jsonl: str | os.PathLike[str],
    senses_csv: str | os.PathLike[str],
) -> None:
    """Write notes and senses as CSV and spans as JSONL in the form of ``ner_spans.jsonl``.

    Each JSON line holds doc_id, start, end, entity_group, text and score (1.0: gold).
    """
    with atomic_path(notes_csv) as path:
        corpus.notes.write_csv(path)
    with atomic_path(senses_csv) as path:
        corpus.senses.write_csv(path)
    with atomic_path(spans_jsonl) as path, path.open("w", encoding="utf-8", newline="") as out:
        for doc_id, start, end, text, label in corpus.spans.iter_rows():
            row = {
                "doc_id": doc_id,
                "start": start,
                "end": end,
                "entity_group": label,
                "text": text,
                "score": GOLD_SCORE,
            }
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
