"""The Triton kernels against plain torch: on a GPU, or in Triton's interpreter on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import Parameter

import medsae
from medsae.sae import sparse
from medsae.sae.sparse import Pattern, decode, pointers_of, pre_activations

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytest.importorskip("triton")
# rows, latents, width: smaller than a tile, odd, and over several tiles
SIZES = [(3, 5, 1), (7, 11, 130), (40, 96, 24), (5, 90, 257)]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.fixture
def kernels():
    from medsae.sae import kernels

    return kernels


@pytest.fixture
def chosen(kernels, monkeypatch):
    monkeypatch.setattr(sparse, "_kernels_for", lambda tensor: kernels)


def problem(n, latents, width, dtype=torch.float32):
    generator = torch.Generator().manual_seed(n)
    mask = torch.rand(n, latents, generator=generator) < 0.1
    mask[0] = False  # a token without latents
    mask[1, : latents // 2] = True  # one with more than a tile holds
    mask[:, -1] = False  # a latent without tokens
    pattern = Pattern(pointers_of(mask.sum(1)), mask.nonzero()[:, 1].int(), latents)
    values, left, right = (
        torch.randn(shape, generator=generator)
        for shape in ((pattern.n_entries,), (n, width), (latents, width))
    )
    left, right = left / width**0.5, right / width**0.5
    moved = Pattern(pattern.pointers.to(DEVICE), pattern.columns.to(DEVICE), latents)
    return moved, *(part.to(DEVICE, dtype) for part in (values, left, right))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_weighted_rows_are_a_sparse_product(kernels, size, dtype):
    pattern, values, left, right = problem(*size, dtype)
    expected = pattern.dense(values.float()) @ right.float()
    out = torch.full_like(left, torch.nan)
    kernels.weighted_rows(pattern.pointers, pattern.columns, values, right, out)
    close = {"rtol": TOLERANCE[dtype], "atol": 10 * TOLERANCE[dtype]}
    torch.testing.assert_close(out.float(), expected, **close)
    kernels.weighted_rows(pattern.pointers, pattern.columns, values, right, out, add=True)
    torch.testing.assert_close(out.float(), 2 * expected, **close)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sampled_is_a_dense_product_where_the_pattern_is(kernels, size, dtype):
    pattern, _, left, right = problem(*size, dtype)
    expected = (left.float() @ right.float().T).flatten()[pattern.flat]
    found = kernels.sampled(pattern.pointers, pattern.columns, left, right)
    torch.testing.assert_close(
        found.float(), expected, rtol=TOLERANCE[dtype], atol=10 * TOLERANCE[dtype]
    )


@pytest.mark.parametrize("size", SIZES[1:], ids=str)
@pytest.mark.parametrize("some", [None, "a slice", "numbers"])
def test_a_training_step_has_the_gradients_of_the_reference(chosen, monkeypatch, size, some):
    monkeypatch.setattr(sparse, "DENSE_ABOVE", 1.0)  # never the dense products
    pattern, _, x, weight = problem(*size)
    n = weight.shape[0]
    numbers = torch.randperm(n + 3)[:n].to(DEVICE)
    rows = {None: None, "a slice": slice(2, n + 2), "numbers": numbers}[some]
    big = torch.cat([weight, weight[:3]]) if some else weight
    dense = pattern.dense(torch.ones(pattern.n_entries, device=DEVICE)) > 0

    w_enc, w_dec, bias = (Parameter(t.clone()) for t in (big, big.flip(0), big[:, 0]))
    chosen_rows = slice(None) if rows is None else rows
    z = torch.where(dense, (x @ w_enc[chosen_rows].T + bias[chosen_rows]).tanh(), 0)
    (z @ w_dec[chosen_rows] - x).square().sum().backward()

    ours = [Parameter(t.clone()) for t in (big, big.flip(0), big[:, 0])]
    b_pre = Parameter(torch.zeros(x.shape[1], device=DEVICE))
    values = pre_activations(x, b_pre, ours[0], ours[2], pattern, rows=rows).tanh()
    (decode(values, pattern, ours[1], rows=rows) - x).square().sum().backward()
    for mine, theirs in zip(ours, (w_enc, w_dec, bias), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-3)


def test_nothing_active_and_nothing_there(kernels):
    none = torch.zeros(4, dtype=torch.int32, device=DEVICE)
    empty = torch.zeros(0, device=DEVICE)
    right = torch.ones(6, 9, device=DEVICE)
    out = kernels.weighted_rows(none, empty.int(), empty, right, right.new_ones(3, 9))
    assert (out == 0).all()
    assert kernels.sampled(none, empty.int(), right[:3], right).numel() == 0


def test_cuda_tensors_get_the_kernels_and_others_do_not():
    assert sparse._kernels_for(torch.zeros(1)) is None
    if DEVICE == "cuda":
        assert sparse._kernels_for(torch.zeros(1, device="cuda")) is sparse._triton_kernels()


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from medsae.sae import kernels

tile = {"ENTRIES": kernels.ENTRIES, "COLUMNS": kernels.COLUMNS}
for capability in (80, 90):
    target = GPUTarget("cuda", capability, 32)
    for kind in ("*fp32", "*bf16"):
        common = {"pointers": "*i32", "index": "*i32", "out": kind, "width": "i32"}
        for add in (True, False):
            names = common | {"values": kind, "matrix": kind, "out_stride": "i32"}
            constant = tile | {"ADD": add}
            source = ASTSource(
                kernels._weighted_rows, names | dict.fromkeys(constant, "constexpr"), constant
            )
            assert compile(source, target=target).asm["cubin"]
        names = common | {"left": kind, "right": kind} | dict.fromkeys(tile, "constexpr")
        assert compile(ASTSource(kernels._sampled, names, tile), target=target).asm["cubin"]
"""


def test_the_kernels_compile_for_gpus_that_are_not_here():
    environment = {**os.environ, "PYTHONPATH": str(Path(medsae.__file__).parents[1])}
    environment.pop("TRITON_INTERPRET", None)  # in this process they are interpreted
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
