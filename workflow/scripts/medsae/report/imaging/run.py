"""What the words of the imaging study are written from."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from medsae.report.imaging.data import controls


@dataclass(frozen=True)
class ImagingRun:
    """What the summary is written from; tables of the chosen SAEs by encoder, or of all."""

    name: str
    slices: pl.DataFrame
    quarantine: pl.DataFrame
    ranking: pl.DataFrame
    chosen: dict[str, str]
    probes: pl.DataFrame
    recovery: pl.DataFrame
    fingerprints: dict[str, pl.DataFrame]
    languages: dict[str, pl.DataFrame]
    metrics: dict[str, dict[str, Any]]
    evaluation: dict[str, Any]
    judged_on: list[str]

    @property
    def controls(self) -> dict[str, str | None]:
        """Encoders that are controls, and of which."""
        return controls(self.ranking, "base_model")

    @property
    def ordered(self) -> list[str]:
        """Encoders under study, then the controls."""
        return sorted(self.chosen, key=lambda name: (name in self.controls, name))
