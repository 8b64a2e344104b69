"""From voxel values to 8-bit grey: Hounsfield windows for CT, percentiles for MR.

CT: a window (level, width) in HU maps [level − width/2, level + width/2] to 0…255.
MR: after N4 bias correction, percentiles 1 and 99 of the positive voxels map to 0…255.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from medsae.imaging.volumes import Volume
from medsae.io import UserError

OTHER = "other"
PERCENTILES = (1.0, 99.0)
N4_ITERATIONS = (50, 50, 50, 50)
N4_TOLERANCE = 0.001
N4_EDGE = 40
"""The bias field is smooth: it is fitted on a copy with at most about so many voxels per axis."""


def window_of(
    study_type: str | None, windows: Mapping[str, Sequence[float]]
) -> tuple[float, float]:
    """(lowest, highest) HU shown for a study: the first window named within ``study_type``.

    ``windows`` maps a word to (level, width); ``other`` serves the studies without a match.
    """
    text = (study_type or "").lower()
    word = next((word for word in windows if word.lower() in text and word != OTHER), OTHER)
    level, width = windows[word]
    return level - width / 2, level + width / 2


def percentile_range(data: NDArray) -> tuple[float, float]:
    """Percentiles 1 and 99 of the positive voxels; raises ``UserError`` if they coincide."""
    positive = data[data > 0]
    low, high = np.percentile(positive, PERCENTILES) if positive.size else (0.0, 0.0)
    if not high > low:
        raise UserError("its positive voxels hold no contrast.")
    return float(low), float(high)


def to_grey(values: NDArray, low: float, high: float) -> NDArray[np.uint8]:
    """``values`` clipped to [low, high] and scaled to 0…255, rounded."""
    scaled = (values.astype(np.float32) - low) * (255.0 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def correct_bias(volume: Volume) -> Volume:
    """``volume`` divided by its N4 bias field (Tustison et al. 2010), fitted inside Otsu's mask."""
    image = SimpleITK.GetImageFromArray(volume.data.astype(np.float32).T)
    image.SetSpacing(volume.spacing)
    shrink = [max(1, round(n / N4_EDGE)) for n in volume.data.shape]
    small = SimpleITK.Shrink(image, shrink)
    corrector = SimpleITK.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations(N4_ITERATIONS)
    corrector.SetConvergenceThreshold(N4_TOLERANCE)
    # ITK splits its sums among threads: one thread gives the same bits on every machine.
    corrector.SetNumberOfThreads(1)
    corrector.Execute(small, SimpleITK.OtsuThreshold(small, 0, 1, 200))
    field = np.exp(SimpleITK.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image)).T)
    return Volume(volume.data / field, volume.spacing, volume.affine)
