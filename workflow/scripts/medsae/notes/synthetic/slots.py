"""Filling the ``{slots}`` of a template.

``{a^b^c}`` is a choice, ``{n:2-9}`` a whole number, ``{d:1.2-3.4}`` a number with one decimal,
``{age}`` a fact of the patient, and ``{lobe}`` a group of ``text/vocabulary.txt``. A group
whose heading ends in ``!`` keeps its first choice through all notes of a patient.
"""

import random
import re
from functools import cache

from medsae.notes.synthetic.banks import read_groups

_SLOT = re.compile(r"\{([^{}]*)\}")


@cache
def vocabulary() -> dict[str, tuple[tuple[str, ...], bool]]:
    """Slot name -> (entries, kept per patient)."""
    return {
        name.removesuffix("!"): (entries, name.endswith("!"))
        for name, entries in read_groups("vocabulary").items()
    }


def fill(template: str, rng: random.Random, facts: dict[str, str]) -> str:
    """Fill every slot, innermost first; kept choices are added to ``facts``.

    Raises ``KeyError`` for a slot that is neither a fact nor a vocabulary group.
    """
    while match := _SLOT.search(template):
        value = _resolve(match.group(1), rng, facts)
        template = template[: match.start()] + value + template[match.end() :]
    return template


def _resolve(body: str, rng: random.Random, facts: dict[str, str]) -> str:
    if "^" in body:
        return rng.choice(body.split("^"))
    if body.startswith("n:"):
        low, high = body[2:].split("-")
        return str(rng.randint(int(low), int(high)))
    if body.startswith("d:"):
        low, high = body[2:].split("-")
        tenths = rng.randint(round(10 * float(low)), round(10 * float(high)))
        return f"{tenths // 10}.{tenths % 10}"
    if body in facts:
        return facts[body]
    entries, kept = vocabulary()[body]
    value = fill(rng.choice(entries), rng, facts)
    if kept:
        facts[body] = value
    return value
