"""What every section of the configuration shares."""

import re
from typing import Annotated

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


class Section(BaseModel):
    """A part of the configuration; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
