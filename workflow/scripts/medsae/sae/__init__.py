"""Sparse autoencoders over any activation store: arrays in, arrays out."""

from medsae.sae.architectures import architectures, build_sae
from medsae.sae.calibrate import Calibration, calibrate, normalized_values, save_calibrated
from medsae.sae.checkpoint import load_sae, save_checkpoint
from medsae.sae.config import SAEConfig, TrainConfig, load_config, save_config
from medsae.sae.model import SparseAutoencoder
from medsae.sae.normalization import Statistics
from medsae.sae.train import TrainResult, train_sae, train_saes

__all__ = [
    "Calibration",
    "SAEConfig",
    "SparseAutoencoder",
    "Statistics",
    "TrainConfig",
    "TrainResult",
    "architectures",
    "build_sae",
    "calibrate",
    "load_config",
    "load_sae",
    "normalized_values",
    "save_calibrated",
    "save_checkpoint",
    "save_config",
    "train_sae",
    "train_saes",
]
