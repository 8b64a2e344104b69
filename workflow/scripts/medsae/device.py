"""Where tensors are computed."""

import torch


def best_device() -> torch.device:
    """The GPU that the job was given, if any; the CPU otherwise."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
