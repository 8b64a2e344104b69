"""The configuration's schema and the layout of the results; imports nothing heavy."""

from medsae.config.layout import Layout
from medsae.config.load import parse_config
from medsae.config.schema import Config

__all__ = ["Config", "Layout", "parse_config"]
