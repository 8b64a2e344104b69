"""From a parsed YAML mapping to a checked ``Config``, or one sentence that says what is wrong."""

import difflib
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from medsae.config.schema import Config
from medsae.io import UserError


def parse_config(raw: Mapping[str, Any]) -> Config:
    """Check ``raw`` against the schema.

    Raises ``UserError`` with one line per wrong key: its path, what is wrong, and for an
    unknown key the nearest known one.
    """
    try:
        return Config.model_validate(dict(raw))
    except ValidationError as error:
        lines = [_sentence(detail) for detail in error.errors()]
        raise UserError("configuration: " + "; ".join(dict.fromkeys(lines)) + ".") from None


def _sentence(detail: ErrorDetails) -> str:
    location = detail["loc"]
    path = ".".join(str(part) for part in location) or "top level"
    if detail["type"] == "extra_forbidden":
        known = sorted(_fields_at(location[:-1]))
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys here: {', '.join(known)}"
        return f"unknown key '{path}': {hint}"
    if detail["type"] == "missing":
        return f"key '{path}' is missing: add it"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return f"key '{path}': {message}"
    return f"key '{path}' is {detail['input']!r}: {message[0].lower()}{message[1:]}"


def _fields_at(location: tuple[int | str, ...]) -> set[str]:
    """Names of the fields that the schema knows at ``location``."""
    models: list[type[BaseModel]] = [Config]
    for part in location:
        if isinstance(part, int):
            continue
        models = [
            found
            for model in models
            if part in model.model_fields
            for found in _models_in(model.model_fields[part].annotation)
        ]
    return {name for model in models for name in model.model_fields}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
