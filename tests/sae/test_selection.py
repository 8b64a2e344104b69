from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medsae.device import fast_float32_products, has_fast_int8_products
from medsae.sae import products, selection
from medsae.sae.rounding import RoundedBatch
from medsae.sae.selection import above_threshold, top_k_per_batch, top_k_per_token

needs_int8 = pytest.mark.skipif(
    not has_fast_int8_products(), reason="this CPU has no units for int8 products"
)


def problem(n, d, latents, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    w = torch.randn(latents, d, generator=generator)
    return x, w, torch.randn(latents, generator=generator)


@pytest.fixture(params=[1, 1 << 30])
def blocks(request, monkeypatch):
    """Pre-activations in many small blocks, and in one."""
    monkeypatch.setattr(products, "CPU_BLOCK_BYTES", request.param)


@pytest.fixture
def by_candidates(monkeypatch):
    """Candidates are looked for however little that saves."""
    monkeypatch.setattr(selection, "FEWEST_TOKENS", 1)
    monkeypatch.setattr(selection, "LATENTS_PER_CANDIDATE", 1)


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
    rough, values = top_k_per_token(x, w, b, 16, torch.bfloat16)
    assert values is None
    same = sum(
        len(set(a.tolist()) & set(c.tolist()))
        for a, c in zip(exact.columns.view(200, 16), rough.columns.view(200, 16), strict=True)
    )
    assert same / 3200 > 0.97


@needs_int8
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(1, 40),
    st.integers(30, 700),
    st.integers(1, 20),
    st.sampled_from([0.0, 1e-30, 1.0, 1e3]),
    st.sampled_from([0.0, 50.0]),
    st.integers(0, 99),
)
def test_candidates_of_rounded_rows_hold_the_exact_choice(
    by_candidates, n, latents, k, scale, outlier, seed
):
    x, w, b = problem(n, 24, latents, seed)
    x[0] *= scale
    x[:, 3] += outlier  # one dimension eats most of the 8 bits
    w[5] *= scale
    b *= (seed % 3) / 2  # at first there is no bias
    pattern, values = top_k_per_token(x, w, b, k, torch.int8)
    dense = x.double() @ w.double().T + b
    found = values.view(n, k).double().sort(1, descending=True).values
    rounding = 1e-6 * (1 + float(x.norm(dim=1).max() * w.norm(dim=1).max()))  # of float32
    close = partial(torch.testing.assert_close, rtol=1e-5, atol=rounding)
    close(found, dense.topk(k).values)
    close(dense.flatten()[pattern.flat], values.double())
    assert all(row.unique().numel() == k for row in pattern.columns.view(n, k))


@needs_int8
def test_candidates_are_looked_at_again_only_where_rounding_could_matter(
    by_candidates, monkeypatch
):
    seen = []
    exact = selection._top_k

    def recorded(centred, *rest):
        seen.append(centred.shape[0])
        return exact(centred, *rest)

    monkeypatch.setattr(selection, "_top_k", recorded)
    x, w, b = problem(300, 64, 2000, 5)
    top_k_per_token(x, w, 0 * b, 8, torch.int8)
    assert sum(seen) < 3
    w[:1000] = w[0]  # a thousand equal latents cannot be told apart by rounded rows
    x[7] = 4 * w[0]
    pattern, _ = top_k_per_token(x, w, 0 * b, 8, torch.int8)
    assert seen[-1] >= 1
    assert (pattern.columns.view(300, 8)[7] < 1000).all()


@needs_int8
@pytest.mark.parametrize("guess", [None, 2.5, 100.0])
def test_a_batch_threshold_from_rounded_rows_is_that_of_float32(blocks, by_candidates, guess):
    x, w, b = problem(300, 24, 200, 6)
    (pattern, values), smallest = top_k_per_batch(x, w, b, 5, torch.int8, guess)
    expected = (x @ w.T + b).flatten().topk(1500)
    torch.testing.assert_close(values.sort(descending=True).values, expected.values)
    assert set(pattern.flat.tolist()) == set(expected.indices.tolist())
    assert smallest == pytest.approx(float(expected.values.min()))


@needs_int8
@pytest.mark.parametrize("shape", [(1, 7, 60), (300, 24, 200)])
def test_rounding_is_off_by_less_than_its_slack(blocks, shape):
    x, w, b = problem(*shape, 8)
    batch = RoundedBatch(x, w, b)
    exact, worst = x.double() @ w.double().T + b, 0.0
    for rows, scores in batch.scores():
        off = (scores.double() * batch.unit[rows] - exact[rows]).abs() / batch.slack[rows]
        worst = max(worst, float(off.max()))
    assert 0.1 < worst < 1  # the slack is wide enough, and not so wide as to say nothing


def test_fast_products_are_exact_and_leave_the_setting_as_it_was():
    before = torch.backends.mkldnn.matmul.fp32_precision
    x, w, _ = problem(400, 300, 500, 4)
    with fast_float32_products():
        found = x @ w.T
    torch.testing.assert_close(found.double(), x.double() @ w.double().T, rtol=0, atol=1e-3)
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    assert torch.get_float32_matmul_precision() == "highest"
