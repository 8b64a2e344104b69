"""Architectures by name. A module in this folder that registers a class is found by itself."""

import importlib
import pkgutil
from collections.abc import Callable

from medsae.io import UserError
from medsae.sae.config import SAEConfig
from medsae.sae.model import SparseAutoencoder

_CLASSES: dict[str, type[SparseAutoencoder]] = {}


def register(name: str) -> Callable[[type[SparseAutoencoder]], type[SparseAutoencoder]]:
    """Make a class available as ``SAEConfig.architecture == name``."""

    def add(cls: type[SparseAutoencoder]) -> type[SparseAutoencoder]:
        cls.name = name
        _CLASSES[name] = cls
        return cls

    return add


def architectures() -> dict[str, type[SparseAutoencoder]]:
    """Every architecture, by name."""
    package = importlib.import_module("medsae.sae.architectures")
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
    return dict(sorted(_CLASSES.items()))


def build_sae(config: SAEConfig, d_model: int) -> SparseAutoencoder:
    """An uninitialised SAE; raises ``UserError`` for an unknown architecture or option."""
    known = architectures()
    if config.architecture not in known:
        raise UserError(
            f"SAEConfig: there is no architecture '{config.architecture}'; "
            f"choose one of {', '.join(known)}."
        )
    return known[config.architecture](config, d_model)
