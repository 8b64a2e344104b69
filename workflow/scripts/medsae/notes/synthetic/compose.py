"""One note: sentences about the patient's subjects, fillers around them, laid out in a style."""

import random
import re
from dataclasses import dataclass

from medsae.notes.synthetic.banks import PARTS, Role, Sentence, sentence_groups, term_bank
from medsae.notes.synthetic.markup import Passage, compile_markup
from medsae.notes.synthetic.note_types import NoteType, Section, specialty_of
from medsae.notes.synthetic.patients import EVERYBODY, Patient, may_have
from medsae.notes.synthetic.slots import fill

MIN_WORDS, MAX_WORDS = 80, 300
_TARGET_WORDS = (95, 250)
_SUBJECTS_PER_NOTE = (3, 5)
_CHANCE_NEUTRAL = 0.45
_CHANCE_SECOND_NEUTRAL = 0.15
_CHANCE_TAIL = 0.3
_CHANCE_GOING_HOME = 0.35
_CHANCE_CRLF = 0.08

_ENTITY = re.compile(r"\[([^|\]]+)\|(?!ADM)")
_TALK = re.compile(r"\{pt\}|\{him\}|Family|[Cc]all|[Aa]sked|[Qq]uestions")
"""Marks sentences about conversations, which no imaging report holds."""

_SHORTHAND = (
    (re.compile(r"\b[Ww]ithout\b"), "w/o"),
    (re.compile(r"\b[Ww]ith\b"), "w/"),
    (re.compile(r"\b[Hh]istory of\b"), "h/o"),
    (re.compile(r"-year-old\b"), "yo"),
    (re.compile(r"\b[Tt]he (?=[\w\[<{])"), ""),
)
"""What a hurried writer does to a sentence, applied to the template before slots are filled."""


@dataclass(frozen=True)
class Note:
    """A laid-out note with gold offsets in characters of ``passage.text``."""

    specialty: str
    note_type: str
    passage: Passage


@dataclass(frozen=True)
class Style:
    """How a note is written down."""

    telegraphic: bool
    bulleted: bool
    upper_headings: bool
    newline: str


def compose_note(patient: Patient, note_type: NoteType, role: Role) -> Note:
    """Write one note of 80 to 300 words for ``patient``, using its random stream."""
    rng = patient.rng
    style = _draw_style(note_type, rng)
    specialty = specialty_of(note_type, patient.main)
    written: list[list[Passage]] = [[] for _ in note_type.sections]
    opening = _write(rng.choice(note_type.opening), patient, style)
    written[0].append(opening)
    words = len(opening.text.split())
    subjects = _subjects(patient, note_type, role)
    for subject in subjects:
        section, passages = _tell(subject, patient, note_type, role, style)
        written[section] += passages
        words += sum(len(passage.text.split()) for passage in passages)
    target = max(rng.randint(*_TARGET_WORDS), MIN_WORDS)
    between: list[tuple[int, str, Passage]] = []
    for section, sentence in _fillers(patient, note_type, specialty, role):
        passage = _write(sentence.marked, patient, style)
        length = len(passage.text.split())
        if words >= target or words + length > MAX_WORDS - 30:
            break
        between.append((section, sentence.part, passage))
        words += length
    for section, _, passage in sorted(between, key=lambda entry: PARTS.index(entry[1])):
        written[section].append(passage)
    title = compile_markup(fill(rng.choice(note_type.titles), rng, patient.facts))
    return Note(specialty, note_type.name, _lay_out(title, note_type, written, style, rng))


def _draw_style(note_type: NoteType, rng: random.Random) -> Style:
    prose = note_type.name == "clinic letter"
    return Style(
        telegraphic=not prose and rng.random() < (0.8 if not note_type.headed else 0.35),
        bulleted=not prose and rng.random() < 0.35,
        upper_headings=rng.random() < 0.4,
        newline="\r\n" if rng.random() < _CHANCE_CRLF else "\n",
    )


def _tell(
    subject: str, patient: Patient, note_type: NoteType, role: Role, style: Style
) -> tuple[int, list[Passage]]:
    """One sentence that speaks of the subject, then perhaps neutral ones that lean on it."""
    rng = patient.rng
    term, sense = subject.split("/")
    bank = term_bank(term, role)
    choices = [
        (index, sentence)
        for sentence in bank.senses[sense]
        for index, section in enumerate(note_type.sections)
        if _fits(sentence, section, note_type, patient)
    ]
    unused = [choice for choice in choices if choice[1].marked not in patient.used]
    section, sentence = rng.choice(unused or choices)
    lines = [sentence.marked]
    if not sentence.closed and rng.random() < _CHANCE_NEUTRAL:
        count = 2 if rng.random() < _CHANCE_SECOND_NEUTRAL else 1
        fresh = [
            line
            for line in bank.neutral
            if line not in patient.used and not (note_type.image_only and _TALK.search(line))
        ]
        lines += rng.sample(fresh, min(count, len(fresh)))
    patient.used.update(lines)
    tails = rng.sample(bank.tails, len(bank.tails))
    return section, [
        _write(_with_tail(line, tail, rng), patient, style, sense)
        for line, tail in zip(lines, tails, strict=False)
    ]


def _subjects(patient: Patient, note_type: NoteType, role: Role) -> list[str]:
    """What this note speaks of: some of the patient's subjects, and often going home."""
    rng = patient.rng
    possible = [
        subject
        for subject in patient.subjects
        if any(
            _fits(sentence, section, note_type, patient)
            for sentence in _sentences(subject, role)
            for section in note_type.sections
        )
    ]
    chosen = rng.sample(possible, min(len(possible), rng.randint(*_SUBJECTS_PER_NOTE)))
    if not note_type.image_only and rng.random() < _CHANCE_GOING_HOME:
        chosen.append(EVERYBODY)
    return chosen


def _sentences(subject: str, role: Role) -> tuple[Sentence, ...]:
    term, sense = subject.split("/")
    return term_bank(term, role).senses[sense]


def _fits(sentence: Sentence, section: Section, note_type: NoteType, patient: Patient) -> bool:
    return (
        sentence.part in section.parts
        and sentence.sex in ("", patient.sex)
        and (sentence.part in "HI" or not note_type.image_only)
    )


def _with_tail(line: str, tail: str, rng: random.Random) -> str:
    if line.endswith(".") and rng.random() < _CHANCE_TAIL:
        return line[:-1] + tail + "."
    return line


def _fillers(
    patient: Patient, note_type: NoteType, specialty: str, role: Role
) -> list[tuple[int, Sentence]]:
    """Every filler that fits the note, in the order in which to use them.

    No two mention the same thing, because they could disagree about it.
    """
    rng = patient.rng
    groups = sentence_groups("fillers", role)
    general = groups["general"] + (groups["ward"] if note_type.ward else ())
    own = list(groups[specialty])
    if not note_type.image_only:
        own += groups[patient.main.specialty]
    pool = list(dict.fromkeys(rng.sample(own, len(own)) + rng.sample(general, len(general))))
    if note_type.image_only:
        pool = own
    ranked = sorted(enumerate(pool), key=lambda entry: entry[0] / len(own) + 2 * rng.random())
    mentioned: set[str] = set()
    at_bedside = note_type.ward or note_type.headed  # a letter reports no orders and doses
    chosen = []
    for _, sentence in ranked:
        sections = [
            index
            for index, section in enumerate(note_type.sections)
            if sentence.part in section.parts and (sentence.part != "C" or at_bedside)
        ]
        topics = {topic.lower() for topic in _ENTITY.findall(sentence.marked)}
        if note_type.image_only and sentence.part == "C":
            topics.add("technique")
        if sections and not topics & mentioned and may_have(patient, sentence.marked):
            mentioned |= topics
            chosen.append((rng.choice(sections), sentence))
    return chosen


def _write(marked: str, patient: Patient, style: Style, sense: str | None = None) -> Passage:
    if style.telegraphic:
        for pattern, short in _SHORTHAND:
            marked = pattern.sub(short, marked)
    passage = compile_markup(fill(marked, patient.rng, patient.facts), sense)
    return passage.capitalise()


def _lay_out(
    title: Passage,
    note_type: NoteType,
    written: list[list[Passage]],
    style: Style,
    rng: random.Random,
) -> Passage:
    page = Passage()
    page.append(title)
    for section, passages in zip(note_type.sections, written, strict=True):
        if not passages:
            continue
        page.text += style.newline
        if note_type.headed:
            page.text += style.newline + _heading(section, style, rng)
        listed = style.bulleted and len(passages) > 1 and "A" in section.parts
        for index, passage in enumerate(passages):
            if listed:
                page.text += style.newline + "- "
            else:
                page.text += (style.newline if note_type.headed else "") if index == 0 else " "
            page.append(passage)
    return page


def _heading(section: Section, style: Style, rng: random.Random) -> str:
    heading = rng.choice(section.headings)
    return (heading.upper() if style.upper_headings else heading) + ":"
