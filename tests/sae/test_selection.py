import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medsae.device import fast_float32_products
from medsae.sae import candidates, products, trainer
from medsae.sae.selection import Arithmetic, above_threshold, top_k_per_batch, top_k_per_token


def problem(n, d, latents, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    w = torch.randn(latents, d, generator=generator)
    return x, w, torch.randn(latents, generator=generator)


@pytest.fixture(params=[1, 1 << 30])
def blocks(request, monkeypatch):
    """Pre-activations in many small blocks, and in one."""
    monkeypatch.setattr(products, "CPU_BLOCK_BYTES", request.param)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 700), st.integers(1, 40), st.integers(0, 99))
def test_top_k_per_token_is_torch_topk(n, latents, k, seed):
    x, w, b = problem(n, 4, latents, seed)
    k = min(k, latents)
    pattern, values = top_k_per_token(x, w, b, k)
    expected = (x @ w.T + b).topk(k).values
    torch.testing.assert_close(values.view(n, k).sort(1, descending=True).values, expected)
    dense = torch.addmm(b, x, w.T)
    torch.testing.assert_close(dense.flatten()[pattern.flat], values)
    assert all(row.unique().numel() == k for row in pattern.columns.view(n, k))


def test_blocks_do_not_change_the_selection(blocks):
    x, w, b = problem(300, 6, 500, 0)
    _, values = top_k_per_token(x, w, b, 7)
    expected = (x @ w.T + b).topk(7).values
    torch.testing.assert_close(values.view(300, 7).sort(1, descending=True).values, expected)


@pytest.mark.parametrize("guess", [None, 0.0, 1.0, 2.5, 100.0])
def test_top_k_per_batch_is_a_flat_top_k_whatever_the_guess(blocks, guess):
    x, w, b = problem(300, 6, 90, 1)
    (pattern, values), smallest = top_k_per_batch(x, w, b, 5, guess=guess)
    expected = (x @ w.T + b).flatten().topk(1500)
    torch.testing.assert_close(values.sort(descending=True).values, expected.values)
    assert set(pattern.flat.tolist()) == set(expected.indices.tolist())
    assert smallest == pytest.approx(float(expected.values.min()))
    assert pattern.counts.sum() == 1500


def test_top_k_per_batch_never_takes_what_is_not_positive(blocks):
    x, w, _ = problem(20, 6, 30, 1)
    b = torch.full((30,), -8.0)
    (pattern, values), _ = top_k_per_batch(x, w, b, 10)
    assert pattern.n_entries == int((x @ w.T + b > 0).sum()) < 200
    assert (values > 0).all()


def test_ties_at_the_batch_threshold_go_to_the_earlier_entries():
    x = torch.ones(3, 1)
    (pattern, _), smallest = top_k_per_batch(x, torch.ones(4, 1), torch.zeros(4), 2)
    assert smallest == 1.0
    assert pattern.flat.tolist() == [0, 1, 2, 3, 4, 5]


def test_thresholds_may_differ_by_latent(blocks):
    x, w, b = problem(300, 6, 90, 2)
    threshold = torch.linspace(-1, 3, 90)
    pattern, values = above_threshold(x, w, b, threshold)
    dense = x @ w.T + b
    assert torch.equal(pattern.dense(torch.ones(pattern.n_entries)).bool(), dense > threshold)
    torch.testing.assert_close(values, dense[dense > threshold])


def test_bfloat16_selection_agrees_with_float32_and_leaves_values_to_be_computed():
    x, w, b = problem(200, 64, 800, 3)
    exact, _ = top_k_per_token(x, w, b, 16)
    rough, values = top_k_per_token(x, w, b, 16, Arithmetic.BFLOAT16)
    assert values is None
    same = sum(
        len(set(a.tolist()) & set(c.tolist()))
        for a, c in zip(exact.columns.view(200, 16), rough.columns.view(200, 16), strict=True)
    )
    assert same / 3200 > 0.97


def test_fast_products_are_exact_and_leave_the_setting_as_it_was():
    before = torch.backends.mkldnn.matmul.fp32_precision
    x, w, _ = problem(400, 300, 500, 4)
    with fast_float32_products():
        found = x @ w.T
    torch.testing.assert_close(found.double(), x.double() @ w.double().T, rtol=0, atol=1e-3)
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(("usual", "expected"), [(12, 14), (32, 36)])
def test_candidates_are_as_many_as_were_needed_before_and_some_more(usual, expected):
    needed = torch.full((200,), usual)
    needed[3] = 32  # one in two hundred does not count
    assert candidates._enough(needed, 32, 8, 2000) == expected


def test_candidates_never_are_fewer_than_wanted_or_more_than_pay():
    assert candidates._enough(torch.full((9,), 2), 24, 8, 2000) == 9
    assert candidates._enough(torch.full((9,), 2000), 24, 8, 2000) == 62


@pytest.mark.parametrize(
    ("compute", "device", "in_int8", "expected"),
    [
        ("float32", "cpu", True, Arithmetic.CANDIDATES),
        ("float32", "cpu", False, Arithmetic.OWN),
        ("float32", "cuda", True, Arithmetic.OWN),
        ("bfloat16", "cpu", True, Arithmetic.INT8),
        ("bfloat16", "cpu", False, Arithmetic.BFLOAT16),
        ("bfloat16", "cuda", True, Arithmetic.BFLOAT16),
    ],
)
def test_int8_is_for_cpus_that_are_fast_in_it(monkeypatch, compute, device, in_int8, expected):
    monkeypatch.setattr(trainer, "has_fast_int8_products", lambda: in_int8)
    assert trainer.arithmetic_for(compute, torch.device(device)) == expected
