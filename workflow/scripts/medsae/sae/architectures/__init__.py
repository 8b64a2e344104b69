"""One module per architecture; adding a module adds an architecture."""

from medsae.sae.architectures.registry import architectures, build_sae, register

__all__ = ["architectures", "build_sae", "register"]
