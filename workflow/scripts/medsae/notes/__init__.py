"""Clinical notes: read, checked, split by patient, cut into shards."""

from medsae.notes.prepare import NotesSummary, prepare_notes, scan_notes, write_notes
from medsae.notes.read import NoteColumns, read_notes

__all__ = [
    "NoteColumns",
    "NotesSummary",
    "prepare_notes",
    "read_notes",
    "scan_notes",
    "write_notes",
]
