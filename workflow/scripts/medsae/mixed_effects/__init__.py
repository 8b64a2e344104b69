"""Mixed-effects models in R over all models, layers and SAEs of a study."""

from medsae.mixed_effects.bridge import save_models
from medsae.mixed_effects.data import (
    delta_ce_table,
    entropy_table,
    jaccard_table,
    overlap_table,
)
from medsae.mixed_effects.study import fit_study

__all__ = [
    "delta_ce_table",
    "entropy_table",
    "fit_study",
    "jaccard_table",
    "overlap_table",
    "save_models",
]
