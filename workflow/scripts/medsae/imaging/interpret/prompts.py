"""What is asked. A prompt's version changes whenever its words do: answers are kept by it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

NAME_VERSION = "name-2"
JUDGE_VERSION = "judge-1"
PICK_VERSION = "pick-1"

NAME = """These {n} medical image slices (CT or MRI) activate one feature of a neural network \
most, strongest first. What is known about them, in the same order (what is not said may be there):
{metadata}

Say what the slices have in common that sets them apart from other slices: modality, plane, body \
region, organs, findings, image quality. Answer with JSON and nothing else:
{{"concept": "at most six words", "description": "one sentence"}}"""

JUDGE = """These {n} medical image slices (CT or MRI) share one visual property. Five descriptions \
follow; one of them was written for other slices with this property.
{candidates}

Rank the descriptions from the best to the worst fit to the slices. Answer with JSON and nothing \
else: {{"ranking": [numbers of the descriptions, best first]}}"""

PICK = """A user searches medical image slices with this query:
{query}

Choose the {n} features that together describe it best, first modality, then plane, then anatomy, \
then demographics:
{catalogue}

Answer with JSON and nothing else: {{"features": [numbers of {n} features]}}"""


@dataclass(frozen=True)
class Description:
    """What a feature shows: a few words and a sentence."""

    concept: str
    description: str


def parse_description(answer: str) -> Description | None:
    """The description in ``answer``; None if there is none."""
    found = _json_object(answer)
    if found is None:
        return None
    values = [found.get("concept"), found.get("description")]
    if not all(isinstance(value, str) and value.strip() for value in values):
        return None
    return Description(*(" ".join(str(value).split()) for value in values))


def parse_ranking(answer: str, n: int) -> list[int] | None:
    """The order of 1 … n in ``answer`` as indices from 0; None unless it names each once."""
    ranking = _integers(answer, "ranking")
    if ranking is None or sorted(ranking) != list(range(1, n + 1)):
        return None
    return [number - 1 for number in ranking]


def parse_features(answer: str, allowed: Sequence[int], n: int) -> list[int] | None:
    """The ``n`` different feature numbers in ``answer``; None unless all are ``allowed``."""
    features = _integers(answer, "features")
    if features is None or len(features) != n or len(set(features)) != n:
        return None
    return features if set(features) <= set(allowed) else None


def _integers(answer: str, key: str) -> list[int] | None:
    value = (_json_object(answer) or {}).get(key)
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        return None
    return value


def _json_object(answer: str) -> dict | None:
    """The outermost JSON object in ``answer``, which models like to wrap in a code fence."""
    start, stop = answer.find("{"), answer.rfind("}")
    if start < 0 or stop < start:
        return None
    try:
        found = json.loads(answer[start : stop + 1])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
