"""One module per architecture; adding a module adds an architecture.

The tests of all of them are one entry in ``tests/sae/test_architectures.py``; `make
config-reference` writes the new name into the reference of the configuration.
"""

from medsae.sae.architectures.registry import architectures, build_sae, register

__all__ = ["architectures", "build_sae", "register"]
