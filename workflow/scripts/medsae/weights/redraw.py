"""Random weights on a trained network's scale."""

import torch


def redraw(state: dict[str, torch.Tensor], seed: int) -> None:
    """Draw every floating tensor of ``state`` anew, in place, seeded by ``seed``.

    Each is normal with the mean and deviation of the trained tensor it replaces: a network's
    own initialisation would change the scale of its parts, and with it what they let through.
    """
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(state):
        trained = state[name]
        if trained.is_floating_point() and trained.numel() > 1:
            mean, deviation = float(trained.float().mean()), float(trained.float().std())
            trained.normal_(mean, deviation, generator=generator)
