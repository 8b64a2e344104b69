"""The reference page of the configuration, made from the schema.

``python workflow/scripts/config_reference.py`` writes it; a test holds it to the schema.
"""

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from medsae.config.schema import Config
from medsae.config.section import RUNTIME

INTRODUCTION = """\
# Configuration reference

Made from `workflow/scripts/medsae/config/` by `make config-reference`; do not edit.

A configuration file states what differs from the defaults below:
`snakemake --configfile config/mine.yaml`. It replaces `config/config.yaml`, the embedded
default, as a whole. Unknown keys are refused.
"""


def reference_page() -> str:
    """The page as Markdown: one table per section of the configuration."""
    return INTRODUCTION + "".join(_tables(Config, ""))


def _tables(model: type[BaseModel], path: str) -> Iterator[str]:
    title = path or "Top level"
    summary = (model.__doc__ or "").strip().splitlines()[0]
    yield f"\n## `{title}`\n\n{summary}\n\n" if path else f"\n## {title}\n\n"
    yield "| key | default | values | meaning |\n|---|---|---|---|\n"
    nested: list[tuple[type[BaseModel], str]] = []
    for name, field in model.model_fields.items():
        section, is_list = _section_of(field.annotation)
        if section is not None:
            nested.append((section, f"{path}.{name}".strip(".") + ("[]" if is_list else "")))
        yield f"| `{name}` | {_default(field, section)} | {_values(field)} | {_text(field)} |\n"
    for section, where in nested:
        yield from _tables(section, where)


def _section_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section that a field holds, if any, and whether it holds a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    is_list = typing.get_origin(annotation) is list
    for argument in typing.get_args(annotation):
        section, nested_list = _section_of(argument)
        if section is not None:
            return section, is_list or nested_list
    return None, False


def _default(field: FieldInfo, section: type[BaseModel] | None) -> str:
    if field.is_required():
        return "**required**"
    if field.default is None:
        return "none"
    if section is not None:
        return "see below"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    if isinstance(field.default, list):
        return ", ".join(f"`{item}`" for item in field.default)
    return f"`{field.default}`"


def _values(field: FieldInfo) -> str:
    words = _type_words(field.annotation)
    bounds = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    for constraint in field.metadata:
        for attribute, sign in bounds.items():
            bound = getattr(constraint, attribute, None)
            if bound is not None:
                words += f", {sign} {bound}"
    return words


def _type_words(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is typing.Annotated:
        return _type_words(arguments[0])
    if origin is list:
        return f"list of {_type_words(arguments[0])}"
    if arguments:
        return " or ".join(_type_words(part) for part in arguments if part is not type(None))
    words = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return words.get(annotation, "section")


def _text(field: FieldInfo) -> str:
    note = " Changing it re-runs nothing." if field.json_schema_extra == RUNTIME else ""
    return (field.description or "").replace("|", "\\|") + note
