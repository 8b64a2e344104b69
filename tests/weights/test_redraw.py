"""Random twins have the scale of what they replace and nothing else of it."""

import torch

from medsae.weights import redraw


def trained():
    generator = torch.Generator().manual_seed(0)
    return {
        "large": 3 + 0.5 * torch.randn(200, 100, generator=generator),
        "step": torch.tensor(7),
        "scalar": torch.tensor(2.5),
    }


def test_mean_and_deviation_stay_and_the_values_go():
    state = trained()
    redraw(state, seed=1)
    assert abs(float(state["large"].mean()) - 3) < 0.02
    assert abs(float(state["large"].std()) - 0.5) < 0.02
    correlation = torch.corrcoef(
        torch.stack([state["large"].flatten(), trained()["large"].flatten()])
    )
    assert abs(float(correlation[0, 1])) < 0.05
    assert (int(state["step"]), float(state["scalar"])) == (7, 2.5)


def test_the_seed_decides_and_the_order_of_the_tensors_does_not():
    one, other = trained(), dict(reversed(trained().items()))
    redraw(one, seed=1)
    redraw(other, seed=1)
    assert torch.equal(one["large"], other["large"])
    redraw(other, seed=2)
    assert not torch.equal(one["large"], other["large"])
