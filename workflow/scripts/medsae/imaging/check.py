"""Refuse bad sources and encoders before anything expensive starts."""

from collections.abc import Mapping, Sequence
from typing import Any

from medsae.imaging.encoders import PIXELS
from medsae.imaging.encoders.prepare import is_packaged
from medsae.imaging.encoders.vision_transformer import check_vision_model
from medsae.imaging.interpret.ask import check_asked
from medsae.imaging.masks import read_labels
from medsae.imaging.sources import find_scans
from medsae.io import UserError
from medsae.weights import locate


def check_imaging(
    sources: Sequence[Mapping[str, str]],
    encoders: Sequence[Mapping[str, Any]],
    asked: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Check the sources, the names of labels, and the encoders (name, source, layer, pooling).

    ``asked``: by role (explainer, judge, picker), the models that will be asked. Volumes are not
    opened: bad ones are put aside, each by name, when they are sliced. Raises ``UserError`` for
    the first source, encoder or model that cannot be used.
    """
    for role, settings in (asked or {}).items():
        try:
            check_asked(settings)
        except UserError as error:
            raise UserError(f"imaging: interpretation: {role}: {error}") from None
    for path in sorted({scan.labels for scan in find_scans(sources) if scan.labels}):
        read_labels(path)
    for encoder in encoders:
        source = encoder["source"]
        try:
            if is_packaged(source):
                found = locate(source)
                if found is None or not found.is_file():
                    raise UserError(f"{source}: there is no such file; correct `source`.")
            elif source != PIXELS:
                check_vision_model(source, encoder["layer"], encoder["pooling"])
        except UserError as error:
            raise UserError(f"imaging: encoders: {encoder['name']}: {error}") from None
