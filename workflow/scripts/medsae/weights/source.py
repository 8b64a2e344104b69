"""Where a model comes from: a hub, a local folder, or weights inside a Python package."""

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from medsae.io import UserError

PACKAGE = "package:"
HUB_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ModelSource:
    """What ``from_pretrained`` of transformers is called with."""

    name: str
    """A folder or a hub id."""
    gguf_file: str | None = None
    is_local: bool = True

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments besides the name."""
        arguments: dict[str, Any] = {"local_files_only": True} if self.is_local else {}
        return arguments | ({"gguf_file": self.gguf_file} if self.gguf_file else {})

    def file(self, name: str) -> Path | None:
        """A file of the model, fetched from the hub if need be; None if it has none.

        Raises ``UserError`` if the model is unknown, gated, or its hub out of reach.
        """
        if self.is_local:
            path = Path(self.name) / name
            return path if path.is_file() else None
        return _hub_file(self.name, name)


def resolve_source(source: str) -> ModelSource:
    """Find ``package:NAME/PATH``, a local folder, a ``.gguf`` file or else a hub id.

    A package is located without importing it: its code never runs. Raises ``UserError``
    for a package that is not installed and for a path that does not exist. Hub ids are
    not looked up here.
    """
    path = locate(source)
    if path is None:
        return ModelSource(source, is_local=False)
    if path.suffix == ".gguf":
        return ModelSource(str(path.parent), gguf_file=path.name)
    if not path.is_dir():
        raise UserError(f"{source} is neither a folder nor a .gguf file: correct `source`.")
    return ModelSource(str(path))


def locate(source: str) -> Path | None:
    """The file or folder that ``source`` names, or None for a hub id.

    Raises ``UserError`` as ``resolve_source`` does.
    """
    if source.startswith(PACKAGE):
        return _path_in_package(source)
    if Path(source).expanduser().exists():
        return Path(source).expanduser()
    if source.startswith((".", "/", "~")) or source.count("/") > 1 or source.endswith(".gguf"):
        raise UserError(f"The model folder {source} does not exist: correct `source`.")
    return None


def _path_in_package(source: str) -> Path:
    package, _, inside = source.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    folders = (spec.submodule_search_locations if spec else None) or []
    if not folders:
        raise UserError(
            f"{source}: no Python package '{package}' is installed; install it or correct `source`."
        )
    for folder in folders:
        if (path := Path(folder) / inside).exists():
            return path
    raise UserError(f"{source}: the package '{package}' has no '{inside}'; correct `source`.")


def _hub_file(repository: str, name: str) -> Path | None:
    try:
        # The hub's client tries for 23 s before it believes that nobody is there.
        alone = not _hub_answers(huggingface_hub.constants.ENDPOINT)
        return Path(huggingface_hub.hf_hub_download(repository, name, local_files_only=alone))
    except GatedRepoError:
        raise UserError(
            f"The model '{repository}' is gated: accept its licence on its hub page, then log in "
            "with `hf auth login` or set HF_TOKEN."
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"The model '{repository}' is neither a folder here nor known to the hub (or it is "
            "private and you are not logged in): correct `source`."
        ) from None
    except LocalEntryNotFoundError:
        # Offline, a file that a cached model lacks looks the same as a model never cached.
        if _is_cached(repository):
            return None
        raise UserError(
            f"The model '{repository}' is not in the local cache and the model hub cannot be "
            "reached: check the network, or download the model and give its folder as `source`."
        ) from None
    except EntryNotFoundError:
        return None
    except HFValidationError:
        raise UserError(
            f"'{repository}' is neither a folder here nor a valid hub id (NAME or OWNER/NAME): "
            "correct `source`."
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise UserError(
            f"The model hub did not answer for '{repository}' ({type(error).__name__}): try "
            "again, or download the model and give its folder as `source`."
        ) from None


@functools.cache
def _hub_answers(endpoint: str) -> bool:
    try:
        huggingface_hub.get_session().head(endpoint, timeout=HUB_TIMEOUT_S)
    except Exception:  # refused, unknown, too late, offline by choice: no answer in any case
        return False
    return True


def _is_cached(repository: str) -> bool:
    try:
        huggingface_hub.snapshot_download(repository, local_files_only=True)
    except (LocalEntryNotFoundError, OSError):
        return False
    return True
