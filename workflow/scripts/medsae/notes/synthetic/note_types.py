"""The kinds of notes: their sections, in order, and which parts of a note each section takes."""

from dataclasses import dataclass

from medsae.notes.synthetic.profiles import Profile


@dataclass(frozen=True)
class Section:
    """A section takes sentences of ``parts``; ``headings`` are ways to name it."""

    parts: str
    headings: tuple[str, ...]


@dataclass(frozen=True)
class NoteType:
    """One kind of note; ``opening`` and ``titles`` are markup with slots."""

    name: str
    weight: int
    titles: tuple[str, ...]
    opening: tuple[str, ...]
    sections: tuple[Section, ...]
    headed: bool = True
    ward: bool = True  # written about somebody who stays in a bed
    image_only: bool = False  # speaks only of what was asked and what is seen
    specialty: str = ""  # "" = the patient's own specialty


_HISTORY = Section("H", ("HPI", "History of present illness", "History"))
_EXAM = Section("E", ("Exam", "Physical examination", "O/E"))
_DATA = Section("I", ("Data", "Results", "Labs and imaging"))
_COURSE = Section("C", ("Hospital course", "Course"))
_PLAN = Section("A", ("A/P", "Assessment and plan", "Impression and plan"))

_WHO = "{age}-year-old {man} with {diagnosis} and {second_diagnosis}"

NOTE_TYPES: tuple[NoteType, ...] = (
    NoteType(
        "ED note", 3,
        ("ED NOTE", "Emergency department physician note"),
        (
            _WHO + ", here with {complaint}.",
            "{age} yo {man}, {diagnosis}, presents with {complaint}.",
        ),
        (_HISTORY, _EXAM, _DATA, Section("CA", ("MDM", "ED course", "Plan"))),
        ward=False,
        specialty="emergency medicine",
    ),
    NoteType(
        "consult", 3,
        ("CONSULT NOTE", "Consultation"),
        (_WHO + "; we are asked to see {him} for {complaint}.",),
        (_HISTORY, _EXAM, _DATA, Section("CA", ("Recommendations", "Impression", "Recs"))),
    ),
    NoteType(
        "progress note", 4,
        ("PROGRESS NOTE", "Progress note, day {n:2-6}", "Daily note"),
        ("{age} yo {man}, {diagnosis}, {hospital} day {n:2-6} for {complaint}.",),
        (
            Section("H", ("S", "Subjective", "Interval history")),
            Section("EI", ("O", "Objective")),
            Section("CA", ("A/P", "Assessment/Plan")),
        ),
    ),
    NoteType(
        "radiology report", 2,
        ("RADIOLOGY REPORT", "Imaging report"),
        ("{age}-year-old {man} with {complaint}; known {diagnosis}.",),
        (
            Section("H", ("INDICATION", "Clinical information")),
            Section("C", ("TECHNIQUE", "Technique")),
            Section("I", ("FINDINGS", "Findings")),
            Section("A", ("IMPRESSION", "Conclusion")),
        ),
        image_only=True,
        specialty="radiology",
    ),
    NoteType(
        "operative note", 2,
        ("OPERATIVE NOTE", "Operation record"),
        (_WHO + ", brought to the operating room; consent on file.",),
        (
            Section("HI", ("Indication", "Background")),
            Section("E", ("Before induction", "Pre-op exam")),
            Section("C", ("Procedure and course", "Findings and procedure")),
            Section("A", ("Post-op plan", "Orders")),
        ),
        specialty="surgery",
    ),
    NoteType(
        "nursing note", 3,
        ("NURSING NOTE", "Nursing shift summary"),
        (
            "{man}, {age}, {diagnosis}. Shift {07-19^19-07}.",
            "Report received at {n:7-8} am: {man}, {age}, {diagnosis}.",
        ),
        (Section("HEICA", ("Shift",)),),
        headed=False,
    ),
    NoteType(
        "discharge summary", 4,
        ("[<Discharge:administrative> summary|ADM]", "[<DISCHARGE:administrative> SUMMARY|ADM]"),
        (
            _WHO + ", admitted to this {hospital} for {complaint}.",
            "{age}-year-old {man} admitted with {complaint}; background of {diagnosis}.",
        ),
        (_HISTORY, _EXAM, _DATA, _COURSE, Section("A", ("Plan", "Follow-up", "Disposition"))),
    ),
    NoteType(
        "clinic letter", 3,
        ("Dear colleague,", "Dear Dr,"),
        (
            "Thank you for referring this " + _WHO + ".",
            "I reviewed this {age}-year-old {man} with {diagnosis} in clinic today.",
        ),
        (_HISTORY, _EXAM, _DATA, Section("CA", ("Plan",))),
        headed=False,
        ward=False,
    ),
)  # fmt: skip


def specialty_of(note_type: NoteType, profile: Profile) -> str:
    """The specialty a note is filed under."""
    return note_type.specialty or profile.specialty
