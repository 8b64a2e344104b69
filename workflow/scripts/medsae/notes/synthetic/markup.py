"""Marked-up sentences and the plain text with gold offsets they compile to.

``[acute renal <failure>|REN]`` is an entity span whose label has the code REN; ``<failure>``
inside or outside it is a lexicon term in the sense of the bank it comes from. A sense can be
written out, ``<failure:renal>``, and the code ``@`` is the label of the term's sense. Offsets
are taken while the text is written, so they cannot disagree with it.
"""

import re
from dataclasses import dataclass, field

from medsae.notes.synthetic.labels import LABELS, SENSE_LABEL, TERM_OF_FORM

_MARK = re.compile(r"[\[\]<>|]")


@dataclass
class Passage:
    """Plain text under construction, with its entity spans and senses.

    ``spans`` hold (start, end, label) and ``senses`` (start, end, term, sense), in
    characters of ``text``, end exclusive.
    """

    text: str = ""
    spans: list[tuple[int, int, str]] = field(default_factory=list)
    senses: list[tuple[int, int, str, str]] = field(default_factory=list)

    def append(self, other: "Passage") -> None:
        """Write ``other`` after this passage, moving its offsets along."""
        shift = len(self.text)
        self.text += other.text
        self.spans += [(start + shift, end + shift, label) for start, end, label in other.spans]
        self.senses += [
            (start + shift, end + shift, term, sense) for start, end, term, sense in other.senses
        ]

    def capitalise(self) -> "Passage":
        """Upper-case the first letter; no offset moves."""
        if self.text[:1].islower():
            self.text = self.text[0].upper() + self.text[1:]
        return self


def compile_markup(marked: str, sense: str | None = None) -> Passage:
    """Compile one marked-up string whose slots are already filled.

    ``sense`` is the sense of terms written without one. Raises ``ValueError`` if brackets
    are unbalanced or nested, a label code or a term is unknown, or a sense is missing.
    """
    passage = Passage()
    entity_start: int | None = None
    entity_sense: tuple[str, str] | None = None
    position = 0
    while match := _MARK.search(marked, position):
        passage.text += marked[position : match.start()]
        position = match.end()
        mark = match.group()
        if mark == "[" and entity_start is None:
            entity_start, entity_sense = len(passage.text), None
        elif mark == "<":
            close = marked.index(">", position)
            entity_sense = _write_term(passage, marked[position:close], sense)
            position = close + 1
        elif mark == "|" and entity_start is not None:
            close = marked.index("]", position)
            code = marked[position:close]
            if code == "@" and entity_sense is not None:
                code = SENSE_LABEL[entity_sense]
            if code not in LABELS:
                raise ValueError(f"unknown label code {code!r} in {marked!r}")
            passage.spans.append((entity_start, len(passage.text), LABELS[code]))
            entity_start, position = None, close + 1
        else:
            raise ValueError(f"misplaced {mark!r} in {marked!r}")
    if entity_start is not None:
        raise ValueError(f"entity left open in {marked!r}")
    passage.text += marked[position:]
    return passage


def _write_term(passage: Passage, body: str, sense: str | None) -> tuple[str, str]:
    form, _, written_sense = body.partition(":")
    key = (TERM_OF_FORM.get(form.lower(), ""), written_sense or sense or "")
    if key not in SENSE_LABEL:
        raise ValueError(f"no such term in such a sense: {body!r} ({sense})")
    start = len(passage.text)
    passage.text += form
    passage.senses.append((start, len(passage.text), *key))
    return key
