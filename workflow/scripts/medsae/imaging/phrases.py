"""Concepts in words, and concepts found again in words."""

import re

from medsae.imaging.concepts import AGE, AGE_GROUPS, CONTENT, EMPTY, MODALITY, ORGAN, PLANE, SEX

MODALITIES = {"ct": "CT", "mr": "MR"}
PEOPLE = {"f": "woman", "m": "man"}
AGES = dict(
    zip(AGE_GROUPS, ("under 40", "of 40 to 60", "of 60 to 80", "of 80 or over"), strict=True)
)

SYNONYMS = {
    "modality:ct": ("ct", "computed tomography"),
    "modality:mr": ("mr", "mri", "magnetic resonance"),
    "plane:axial": ("axial", "transverse"),
    "sex:f": ("woman", "women", "female"),
    "sex:m": ("man", "men", "male"),
}

PRIORITY = (MODALITY, PLANE, ORGAN, CONTENT, SEX, AGE)
"""Families in the order in which a description names them."""


def words_of(concept: str) -> str:
    """``organ:kidney_left`` → kidney left; ``sex:f`` → woman; others: column and value."""
    family, value = concept.split(":", 1)
    if concept == EMPTY:
        return "without labelled structures"
    if family == MODALITY:
        return MODALITIES.get(value, value)
    if family == SEX:
        return PEOPLE.get(value, value)
    if family == AGE:
        return AGES.get(value, value)
    if family in {PLANE, ORGAN}:
        return value.replace("_", " ")
    return f"{family.replace('_', ' ')} {value}"


def sentence(concepts: list[str]) -> str:
    """``concepts`` as a search query or a description: axial CT slice showing the liver …"""
    by_family: dict[str, list[str]] = {}
    for concept in concepts:
        by_family.setdefault(concept.split(":", 1)[0], []).append(words_of(concept))
    head = [*by_family.pop(PLANE, []), *by_family.pop(MODALITY, []), "slice"]
    text = " ".join(head)
    if empty := by_family.pop(CONTENT, []):
        text += f" {empty[0]}"
    if organs := by_family.pop(ORGAN, []):
        text += " showing " + " and ".join(f"the {organ}" for organ in organs)
    sex, age = by_family.pop(SEX, []), by_family.pop(AGE, [])
    if sex or age:
        text += f" of a {sex[0] if sex else 'patient'}" + (f" {age[0]}" if age else "")
    for rest in by_family.values():
        text += ", " + ", ".join(rest)
    return text[0].upper() + text[1:]


def in_priority(concepts: list[str]) -> list[str]:
    """Modality before plane before anatomy before demographics before the rest."""
    order = {family: place for place, family in enumerate(PRIORITY)}
    return sorted(concepts, key=lambda name: order.get(name.split(":", 1)[0], len(order)))


def concepts_in(text: str, names: tuple[str, ...]) -> list[str]:
    """Which of the concepts ``names`` are named in ``text``, in order of priority.

    A name inside a longer one that is also there (kidney, left kidney) does not count.
    """
    lowered = " " + re.sub(r"[^a-z0-9]+", " ", text.lower()) + " "
    found: list[tuple[str, str]] = []
    for name in names:
        for phrase in (*SYNONYMS.get(name, ()), words_of(name)):
            wanted = re.sub(r"[^a-z0-9]+", " ", phrase.lower()).strip()
            if wanted and f" {wanted} " in lowered:
                found.append((name, wanted))
                break
    kept = [
        name
        for name, phrase in found
        if not any(f" {phrase} " in f" {other} " and phrase != other for _, other in found)
    ]
    return in_priority(kept)
