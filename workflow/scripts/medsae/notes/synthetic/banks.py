"""The sentence and word banks in ``text/``: reading them, and who may use which line.

A bank file is plain text: ``# name`` opens a group, every other non-empty line is an entry.
Sentence entries begin with the part of a note they belong to and, where it matters, the sex
of the patient: ``H:`` history, ``E:`` examination, ``I:`` imaging and other studies, ``C:``
course and procedures, ``A:`` assessment and plan; ``HF:`` only in women, ``HM:`` only in men.
``E!:`` marks a sentence that no neutral sentence may follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

Role = Literal["study", "ner_training"]
ROLES: tuple[Role, ...] = ("study", "ner_training")
PARTS = "HEICA"
TEXT_FOLDER = Path(__file__).parent / "text"

T = TypeVar("T")


@dataclass(frozen=True)
class Sentence:
    """One marked-up sentence template and where it may stand."""

    part: str
    sex: str  # "F", "M" or "" for both
    marked: str
    closed: bool  # nothing neutral may lean on it: "no mass", "muscle mass"


@dataclass(frozen=True)
class TermBank:
    """The sentences of one lexicon term for one role."""

    senses: dict[str, tuple[Sentence, ...]]
    neutral: tuple[str, ...]
    tails: tuple[str, ...]


@cache
def read_groups(name: str) -> dict[str, tuple[str, ...]]:
    """Read the bank file ``text/<name>.txt`` as group name -> entries."""
    groups: dict[str, list[str]] = {}
    entries: list[str] | None = None
    for line in (TEXT_FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            entries = groups.setdefault(line[2:].strip(), [])
        elif line.strip():
            if entries is None:
                raise ValueError(f"{name}.txt: an entry stands before the first group")
            entries.append(line.strip())
    return {group: tuple(lines) for group, lines in groups.items()}


def parse_sentence(entry: str) -> Sentence:
    """Split ``HF: text`` into part, sex and markup."""
    head, _, marked = entry.partition(": ")
    if not marked or head[:1] not in PARTS or head[1:].rstrip("!") not in ("", "F", "M"):
        raise ValueError(f"a sentence must begin with its part of the note: {entry!r}")
    return Sentence(head[0], head[1:].rstrip("!"), marked, head.endswith("!"))


def for_role(entries: Sequence[T], role: Role) -> tuple[T, ...]:
    """The share of a bank that ``role`` may use.

    Of every four consecutive entries one is for training the recogniser only, one is
    common to both roles and two are for the study only, so that the recogniser meets
    phrasing in the study that it was not trained on.
    """
    if role == "ner_training":
        return tuple(entry for index, entry in enumerate(entries) if index % 4 < 2)
    return tuple(entry for index, entry in enumerate(entries) if index % 4 != 0)


@cache
def term_bank(term: str, role: Role) -> TermBank:
    """The bank of ``term`` as ``role`` sees it."""
    groups = dict(read_groups(f"terms/{term}"))
    neutral, tails = groups.pop("neutral"), groups.pop("tails")
    return TermBank(
        senses={
            sense: tuple(parse_sentence(entry) for entry in for_role(entries, role))
            for sense, entries in groups.items()
        },
        neutral=for_role(neutral, role),
        tails=for_role(tails, role),
    )


@cache
def sentence_groups(name: str, role: Role) -> dict[str, tuple[Sentence, ...]]:
    """A file of tagged sentences as group -> sentences that ``role`` may use."""
    return {
        group: tuple(parse_sentence(entry) for entry in for_role(entries, role))
        for group, entries in read_groups(name).items()
    }
