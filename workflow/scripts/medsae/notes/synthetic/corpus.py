"""The embedded corpus: synthetic clinical notes with gold entity spans and gold senses.

Each patient owns one random stream, seeded by corpus seed, role and index, so that the two
roles share no randomness, and each role sees its own share of every sentence bank.
"""

from collections import Counter
from dataclasses import dataclass

import polars as pl

from medsae.notes.synthetic.banks import ROLES, Role
from medsae.notes.synthetic.compose import compose_note
from medsae.notes.synthetic.note_types import NOTE_TYPES
from medsae.notes.synthetic.patients import make_patient

NOTES_PER_PATIENT = 2.4
DOC_PREFIX: dict[Role, str] = {"study": "note", "ner_training": "training-note"}

NOTES_SCHEMA = {
    "doc_id": pl.String,
    "patient_id": pl.String,
    "specialty": pl.String,
    "note_type": pl.String,
    "text": pl.String,
}
SPANS_SCHEMA = {
    "doc_id": pl.String,
    "start": pl.Int64,
    "end": pl.Int64,
    "text": pl.String,
    "label": pl.String,
}
SENSES_SCHEMA = {
    "doc_id": pl.String,
    "start": pl.Int64,
    "end": pl.Int64,
    "term": pl.String,
    "sense": pl.String,
}


@dataclass(frozen=True)
class SyntheticCorpus:
    """Notes with their gold annotation; offsets are characters of ``notes.text``.

    ``notes``: doc_id, patient_id, specialty, note_type, text. ``spans``: doc_id, start, end,
    text, label; they never overlap. ``senses``: doc_id, start, end, term, sense, one row for
    every occurrence of a lexicon term.
    """

    notes: pl.DataFrame
    spans: pl.DataFrame
    senses: pl.DataFrame


def generate_corpus(n_notes: int, seed: int, role: Role) -> SyntheticCorpus:
    """Generate ``n_notes`` notes; the same arguments give the same bytes everywhere.

    Raises ``ValueError`` for a non-positive ``n_notes`` or an unknown ``role``.
    """
    if n_notes < 1:
        raise ValueError(f"n_notes must be at least 1, not {n_notes}")
    if role not in ROLES:
        raise ValueError(f"role must be one of {', '.join(ROLES)}, not {role!r}")
    notes: list[tuple[str, ...]] = []
    spans: list[tuple[str, int, int, str, str]] = []
    senses: list[tuple[str, int, int, str, str]] = []
    told: Counter[str] = Counter()
    for index, note_count in enumerate(_notes_per_patient(n_notes)):
        patient = make_patient(index, seed, role, told)
        drawn = patient.rng.choices(
            range(len(NOTE_TYPES)), [kind.weight for kind in NOTE_TYPES], k=note_count
        )
        for kind in sorted(drawn):
            note = compose_note(patient, NOTE_TYPES[kind], role)
            doc_id = f"{DOC_PREFIX[role]}-{len(notes):05d}"
            text = note.passage.text
            notes.append((doc_id, patient.patient_id, note.specialty, note.note_type, text))
            spans += [
                (doc_id, start, end, text[start:end], label)
                for start, end, label in note.passage.spans
            ]
            senses += [(doc_id, *occurrence) for occurrence in note.passage.senses]
    return SyntheticCorpus(
        notes=pl.DataFrame(notes, schema=NOTES_SCHEMA, orient="row"),
        spans=pl.DataFrame(spans, schema=SPANS_SCHEMA, orient="row"),
        senses=pl.DataFrame(senses, schema=SENSES_SCHEMA, orient="row"),
    )


def _notes_per_patient(n_notes: int) -> list[int]:
    """One to four notes each, in a fixed cycle whose mean is ``NOTES_PER_PATIENT``."""
    cycle = (2, 1, 4, 2, 3)
    assert sum(cycle) == NOTES_PER_PATIENT * len(cycle)
    counts: list[int] = []
    while (left := n_notes - sum(counts)) > 0:
        counts.append(min(cycle[len(counts) % len(cycle)], left))
    return counts
