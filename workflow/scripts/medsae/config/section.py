"""What every section of the configuration shares."""

import re
from collections.abc import Set as AbstractSet
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

NAME_PATTERN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")


def _usable_as_folder(name: str) -> str:
    if not NAME_PATTERN.match(name):
        raise ValueError(
            f"'{name}' becomes a folder name: use letters, digits, '.', '_' and '-' only, "
            "and begin with a letter or digit"
        )
    return name


FolderName = Annotated[str, AfterValidator(_usable_as_folder)]


# Given to a field as `json_schema_extra`: the key says how the work is done, not what comes
# out. It reaches the scripts past Snakemake's `params`, so that changing it re-runs nothing.
RUNTIME: dict[str, Any] = {"runtime": True}


class Section(BaseModel):
    """A part of the configuration; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def runtime_keys(cls) -> set[str]:
        """The keys of this section that are marked ``RUNTIME``."""
        return {
            name for name, field in cls.model_fields.items() if field.json_schema_extra == RUNTIME
        }

    def tracked(self, exclude: AbstractSet[str] = frozenset()) -> dict[str, Any]:
        """What results depend on: every key but ``exclude`` and the runtime keys, as plain data."""
        left_out = exclude | self.runtime_keys()
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            name: value.tracked() if isinstance(value, Section) else value
            for name, value in values.items()
            if name not in left_out
        }

    def runtime(self) -> dict[str, Any]:
        """The runtime keys and their values."""
        return {name: getattr(self, name) for name in sorted(self.runtime_keys())}
