"""The sparse products and their gradients against dense autograd and finite differences."""

import pytest
import torch
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode

from medsae.sae import SAEConfig, build_sae
from medsae.sae.initialize import initialize
from medsae.sae.sparse import (
    Code,
    Pattern,
    decode,
    forget_gradient,
    gradient_of,
    pointers_of,
    pre_activations,
)

N, D, LATENTS = 7, 5, 11


def random_pattern(share, seed=0):
    mask = torch.rand(N, LATENTS, generator=torch.Generator().manual_seed(seed)) < share
    mask[2] = False  # a token without latents
    mask[:, 4] = False  # a latent without tokens
    columns = mask.nonzero()[:, 1].int()
    return Pattern(pointers_of(mask.sum(1)), columns, LATENTS), mask


@pytest.fixture
def parts():
    torch.manual_seed(0)
    return {
        "x": torch.randn(N, D),
        "weight": torch.randn(LATENTS, D),
        "b_enc": torch.randn(LATENTS),
        "b_pre": torch.randn(D),
        "target": torch.randn(N, D),
    }


@pytest.mark.parametrize("share", [0.0, 0.12, 0.9])  # none, sparse products, dense products
@pytest.mark.parametrize("known", [False, True])
def test_encode_and_decode_have_the_gradients_of_the_dense_autoencoder(parts, share, known):
    pattern, mask = random_pattern(share)
    assert pattern.is_dense == (share == 0.9)
    x, target = parts["x"], parts["target"]

    dense = {name: Parameter(parts[name].clone()) for name in ("weight", "b_enc", "b_pre")}
    w_dec = Parameter(parts["weight"].flip(0).clone())
    u = (x - dense["b_pre"]) @ dense["weight"].T + dense["b_enc"]
    expected = torch.where(mask, u.tanh(), 0) @ w_dec
    (expected - target).square().sum().backward()

    ours = {name: Parameter(parts[name].clone()) for name in ("weight", "b_enc", "b_pre")}
    our_dec = Parameter(parts["weight"].flip(0).clone())
    values = pre_activations(
        x - ours["b_pre"].detach(),
        ours["b_pre"],
        ours["weight"],
        ours["b_enc"],
        pattern,
        u.detach()[mask] if known else None,
    )
    torch.testing.assert_close(values, u.detach()[mask])
    found = decode(values.tanh(), pattern, our_dec)
    torch.testing.assert_close(found, expected)
    (found - target).square().sum().backward()

    for name, parameter in ours.items():
        torch.testing.assert_close(
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad,
            dense[name].grad,
        )
    torch.testing.assert_close(
        torch.zeros_like(our_dec) if our_dec.grad is None else our_dec.grad, w_dec.grad
    )


@pytest.mark.parametrize("rows", [slice(3, 14), torch.tensor([9, 0, 13, 1, 2, 3, 4, 5, 6, 7, 8])])
@pytest.mark.parametrize("share", [0.12, 0.9])
def test_a_choice_of_rows_reads_and_trains_those_rows_alone(parts, rows, share):
    pattern, mask = random_pattern(share)
    torch.manual_seed(1)
    big, bias = torch.randn(16, D), torch.randn(16)
    one, two = Parameter(big.clone()), Parameter(big.clone())
    b_one, b_two = Parameter(bias.clone()), Parameter(bias.clone())
    x, target = parts["x"], parts["target"]
    b_pre = Parameter(torch.zeros(D))

    z = torch.where(mask, x @ one[rows].T + b_one[rows], 0)
    (z @ one[rows] - target).square().sum().backward()
    values = pre_activations(x, b_pre, two, b_two, pattern, rows=rows)
    (decode(values, pattern, two, rows=rows) - target).square().sum().backward()
    torch.testing.assert_close(two.grad, one.grad)
    torch.testing.assert_close(b_two.grad, b_one.grad)


@pytest.mark.parametrize("share", [0.12, 0.9])
def test_values_have_the_gradient_of_finite_differences(parts, share):
    pattern, _ = random_pattern(share)
    weight = parts["weight"]  # no gradient wanted for it

    def loss(values):
        return (decode(values, pattern, weight) - parts["target"]).square().sum()

    torch.manual_seed(2)
    values = torch.randn(pattern.n_entries, requires_grad=True)
    loss(values).backward()
    for entry in range(0, pattern.n_entries, 3):
        step = torch.zeros_like(values)
        step[entry] = 1.0  # the loss is quadratic: a central difference is exact at any step
        with torch.no_grad():
            slope = (loss(values + step) - loss(values - step)) / 2
        torch.testing.assert_close(values.grad[entry], slope, rtol=1e-3, atol=1e-3)
    assert weight.grad is None


def test_gradients_accumulate_over_several_uses(parts):
    pattern, _ = random_pattern(0.12)
    weight = Parameter(parts["weight"].clone())
    values = torch.ones(pattern.n_entries, requires_grad=True)
    decode(values, pattern, weight).sum().backward()
    once = weight.grad.clone()
    decode(values, pattern, weight).sum().backward()
    torch.testing.assert_close(weight.grad, 2 * once)


def test_the_transposed_pattern_is_the_transpose():
    pattern, _ = random_pattern(0.3)
    values = torch.arange(1.0, pattern.n_entries + 1)
    order, transposed = pattern.transposed
    torch.testing.assert_close(transposed.dense(values[order]), pattern.dense(values).T)


def test_filtering_a_code_keeps_tokens_apart():
    pattern, _ = random_pattern(0.5)
    values = torch.arange(1.0, pattern.n_entries + 1)
    keep = pattern.columns % 2 == 0
    kept = Code(pattern, values).where(keep)
    expected = pattern.dense(values)
    expected[:, 1::2] = 0
    assert torch.equal(kept.pattern.dense(kept.values), expected)


@pytest.mark.parametrize("share", [0.0, 0.12, 0.9])
@pytest.mark.parametrize("rows", [None, slice(0, LATENTS), torch.arange(LATENTS)])
def test_a_forgotten_gradient_begins_at_zero(parts, share, rows):
    pattern, _ = random_pattern(share)
    weight = Parameter(parts["weight"].clone())
    values = torch.ones(pattern.n_entries, requires_grad=True)
    decode(values, pattern, weight, rows=rows).sum().backward()
    once = gradient_of(weight).clone()
    weight.grad.fill_(torch.nan)
    forget_gradient(weight)
    for times in (1, 2):
        decode(values, pattern, weight, rows=rows).sum().backward()
        torch.testing.assert_close(gradient_of(weight), times * once)


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation inside gives."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                self.numel = max(self.numel, tensor.numel())
        return out


@pytest.mark.parametrize("architecture", ["topk", "batch_topk", "matryoshka"])
def test_no_gradient_of_codes_is_dense(architecture):
    n_tokens, n_latents, width = 512, 256, 24
    model = build_sae(SAEConfig(architecture, n_latents, 4, normalization="none"), width)
    x = torch.randn(n_tokens, width)
    initialize(model, x, seed=0)
    loss = sum(model.objective(x).terms.values())
    with Largest() as seen:
        loss.backward()
    assert 0 < seen.numel < n_tokens * n_latents / 2
