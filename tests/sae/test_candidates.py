"""What is found by rounded rows, against what the whole product finds."""

from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medsae.device import has_fast_int8_products
from medsae.sae import candidates, products, scan
from medsae.sae.partition import grain, largest_columns
from medsae.sae.rounding import LARGEST, RoundedBatch
from medsae.sae.selection import Arithmetic, top_k_per_batch, top_k_per_token
from medsae.sae.sparse import Pattern

pytestmark = pytest.mark.skipif(
    not has_fast_int8_products(), reason="this CPU has no units for int8 products"
)


def problem(n, d, latents, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    w = torch.randn(latents, d, generator=generator)
    return x, w, torch.randn(latents, generator=generator)


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Candidates are looked for however little that saves."""
    monkeypatch.setattr(candidates, "FEWEST_TOKENS", 1)
    monkeypatch.setattr(candidates, "LATENTS_PER_CANDIDATE", 1)


@pytest.fixture
def done_over(monkeypatch):
    """How many tokens each call of the exact selection was for."""
    seen, exact = [], scan.top_k

    def recorded(centred, *rest):
        seen.append(centred.shape[0])
        return exact(centred, *rest)

    monkeypatch.setattr(scan, "top_k", recorded)
    return seen


@settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(1, 40),
    st.integers(30, 700),
    st.integers(1, 20),
    st.sampled_from([0.0, 1e-30, 1.0, 1e3]),
    st.sampled_from([0.0, 50.0]),
    st.integers(0, 99),
)
def test_the_choice_is_that_of_the_whole_product(n, latents, k, scale, outlier, seed):
    x, w, b = problem(n, 24, latents, seed)
    x[0] *= scale
    x[:, 3] += outlier  # one dimension eats most of the 8 bits
    w[5] *= scale
    b *= (seed % 3) / 2  # at first there is no bias
    pattern, values = top_k_per_token(x, w, b, k, Arithmetic.CANDIDATES)
    dense = x.double() @ w.double().T + b
    found = values.view(n, k).double().sort(1, descending=True).values
    rounding = 1e-6 * (1 + float(x.norm(dim=1).max() * w.norm(dim=1).max()))  # of float32
    close = partial(torch.testing.assert_close, rtol=1e-5, atol=rounding)
    close(found, dense.topk(k).values)
    close(dense.flatten()[pattern.flat], values.double())
    assert all(row.unique().numel() == k for row in pattern.columns.view(n, k))


def test_tokens_are_done_over_only_where_rounding_could_matter(done_over):
    x, w, b = problem(300, 64, 2000, 5)
    top_k_per_token(x, w, 0 * b, 8, Arithmetic.CANDIDATES)
    assert sum(done_over) < 3
    w[:1000] = w[0]  # a thousand equal latents cannot be told apart by rounded rows
    x[7] = 4 * w[0]
    pattern, _ = top_k_per_token(x, w, 0 * b, 8, Arithmetic.CANDIDATES)
    assert 1 <= done_over[-1] < 300
    assert (pattern.columns.view(300, 8)[7] < 1000).all()


def test_the_choice_is_the_same_however_many_candidates_the_tokens_before_needed(
    monkeypatch, done_over
):
    monkeypatch.setattr(products, "CPU_BLOCK_BYTES", 1)  # 128 tokens
    numbers, enough = [], candidates._enough

    def recorded(*given):
        numbers.append(enough(*given))
        return numbers[-1]

    monkeypatch.setattr(candidates, "_enough", recorded)
    x, w, b = problem(700, 64, 2000, 5)
    w[1000:] = w[:1000] + 0.01 * w[1000:]  # each is needed beside its like
    pattern, values = top_k_per_token(x, w, b, 8, Arithmetic.CANDIDATES)
    assert len(set(numbers)) > 1
    assert 0 < sum(done_over) < 100
    dense = (x @ w.T + b).topk(8)
    torch.testing.assert_close(values.view(700, 8).sort(1, descending=True).values, dense.values)
    assert shared(pattern, Pattern.of_rows(dense.indices.int(), 2000), 8) > 0.999


def test_a_large_dimension_does_not_make_most_tokens_be_done_over(done_over):
    x, w, b = problem(300, 64, 2000, 5)
    x[:, 3] += 15.0
    top_k_per_token(x, w, b, 8, Arithmetic.CANDIDATES)
    assert sum(done_over) < 60


def test_a_latent_that_dwarfs_the_others_is_left_to_the_whole_product(done_over):
    x, w, b = problem(300, 64, 2000, 5)
    w[17] *= 50
    _, values = top_k_per_token(x, w, b, 8, Arithmetic.CANDIDATES)
    assert done_over == [300]
    assert torch.equal(values, top_k_per_token(x, w, b, 8)[1])


def test_a_nan_is_not_hidden():
    x, w, b = problem(64, 48, 2048, 1)
    w[3, 4] = float("nan")
    assert top_k_per_token(x, w, b, 8, Arithmetic.CANDIDATES)[1].isnan().sum() == 64


@pytest.mark.parametrize("bias", [0.0, 0.1, 10.0, 1000.0])
@pytest.mark.parametrize("nothing", ["x", "w"])
def test_zeros_are_no_exception(bias, nothing):
    x, w, b = problem(64, 48, 2048, 1)
    x, w, b = (0 * x if nothing == "x" else x), (0 * w if nothing == "w" else w), bias * b
    found = top_k_per_token(x, w, b, 8, Arithmetic.CANDIDATES)[1].view(64, 8).sort(1).values
    assert torch.equal(found, top_k_per_token(x, w, b, 8)[1].view(64, 8).sort(1).values)


@pytest.mark.parametrize("threshold", [0.05, 2.0, 8.0, 14.0, 1e9])
def test_what_is_above_a_threshold_is_the_same(threshold):
    x, w, b = problem(300, 24, 2000, 6)
    x[0] *= 1e-6
    exact = scan.above(x, w, b, threshold, torch.float32)[0]
    found = candidates.above(x, w, b, threshold, 2000)[0]
    clear = (x.double() @ w.double().T + b - threshold).abs() > 1e-4
    masks = [p.dense(torch.ones(p.n_entries)).bool() for p in (exact, found)]
    assert not ((masks[0] != masks[1]) & clear).any()


def test_too_many_above_a_threshold_are_left_to_the_whole_product():
    x, w, b = problem(300, 24, 2000, 6)
    assert candidates.above(x, w, b, 0.05, 100) is None


@pytest.mark.parametrize("size", [1, 1 << 30])
@pytest.mark.parametrize("guess", [None, 2.5, 100.0])
def test_a_batch_threshold_is_that_of_the_whole_product(monkeypatch, size, guess):
    monkeypatch.setattr(products, "CPU_BLOCK_BYTES", size)
    x, w, b = problem(300, 24, 200, 6)
    (pattern, values), smallest = top_k_per_batch(x, w, b, 5, Arithmetic.CANDIDATES, guess)
    expected = (x @ w.T + b).flatten().topk(1500)
    torch.testing.assert_close(values.sort(descending=True).values, expected.values)
    assert set(pattern.flat.tolist()) == set(expected.indices.tolist())
    assert smallest == pytest.approx(float(expected.values.min()))


@pytest.mark.parametrize("size", [1, 1 << 30])
@pytest.mark.parametrize("longest", [1.0, 8.0])
@pytest.mark.parametrize("bias", [0.0, 0.1, 10.0])
def test_rounding_is_off_by_less_than_its_slack(monkeypatch, size, longest, bias):
    monkeypatch.setattr(products, "CPU_BLOCK_BYTES", size)
    x, w, b = problem(200, 300, 500, 8)
    w[0] *= longest
    batch = RoundedBatch(x, w, bias * b)
    exact, worst = x.double() @ w.double().T + bias * b, 0.0
    for rows, scores in batch.scores():
        off = (scores.double() * batch.unit[rows] - exact[rows]).abs() / batch.slack[rows]
        worst = max(worst, float(off.max()))
        assert int(scores.abs().max()) < batch.limit
    assert 0.15 < worst < 1.1  # wide enough, and not so wide as to say nothing


def test_a_token_of_one_entry_has_no_bound():
    x, w, b = problem(20, 1024, 100, 1)
    x[4] = 0
    x[4, 9] = 1.0
    assert RoundedBatch(x, w, 0 * b).slack.isinf().flatten().tolist() == [
        row == 4 for row in range(20)
    ]


@pytest.mark.parametrize(("m", "k"), [(300, 7), (4096, 33), (9000, 96), (20000, 20)])
@pytest.mark.parametrize("d", [24, 4096, 5376])
def test_integers_are_chosen_to_a_grain(m, k, d):
    limit = LARGEST**2 * (d + 16) + 1
    step = grain(limit)
    generator = torch.Generator().manual_seed(m)
    rows = torch.randint(-200 * step, 200 * step, (8, m), generator=generator, dtype=torch.int32)
    rows[0, :9] = limit - 1
    rows[1, :9] = 1 - limit
    index = largest_columns(rows, k, limit)
    assert all(row.unique().numel() == k for row in index)
    lowest = rows.gather(1, index).amin(1)
    assert (rows.scatter(1, index, 1 - limit).amax(1) < lowest + step).all()
    if k >= 9:
        assert set(range(9)) <= set(index[0].tolist())


def test_rounded_rows_alone_choose_nearly_the_same():
    x, w, b = problem(200, 64, 2000, 5)
    exact, _ = top_k_per_token(x, w, b, 16)
    rough, values = top_k_per_token(x, w, b, 16, Arithmetic.INT8)
    assert values is None
    assert 0.95 < shared(exact, rough, 16) < 1


def test_tokens_that_are_too_rough_are_chosen_in_bfloat16(done_over):
    x, w, b = problem(200, 64, 2000, 5)
    x[7] = 0
    x[7, 9] = 1.0
    in_bfloat16, _ = top_k_per_token(x[7:8], w, b, 16, Arithmetic.BFLOAT16)
    done_over.clear()
    rough, _ = top_k_per_token(x, w, b, 16, Arithmetic.INT8)
    assert done_over == [1]
    assert set(rough.columns[7 * 16 : 8 * 16].tolist()) == set(in_bfloat16.columns.tolist())


def test_a_batch_too_rough_for_int8_is_chosen_in_bfloat16():
    x, w, b = problem(300, 64, 2000, 5)
    w[17] *= 50
    found = [top_k_per_token(x, w, b, 8, a)[0] for a in (Arithmetic.INT8, Arithmetic.BFLOAT16)]
    assert torch.equal(found[0].columns, found[1].columns)


def test_a_batch_in_int8_is_decided_by_float32_among_candidates_or_left_to_bfloat16():
    x, w, b = problem(300, 24, 200, 6)
    found = {a: top_k_per_batch(x, w, b, 5, a, 9.0) for a in Arithmetic}
    assert torch.equal(found[Arithmetic.INT8][0][1], found[Arithmetic.CANDIDATES][0][1])
    assert found[Arithmetic.INT8][1] == found[Arithmetic.CANDIDATES][1]
    w[17] *= 50  # too rough
    found = {a: top_k_per_batch(x, w, b, 5, a, 9.0) for a in Arithmetic}
    assert found[Arithmetic.INT8][0][1] is None
    assert found[Arithmetic.INT8][1] == found[Arithmetic.BFLOAT16][1]


def shared(one, other, k):
    """Share of the latents of each token that both patterns have."""
    pairs = zip(one.columns.view(-1, k), other.columns.view(-1, k), strict=True)
    return sum(len(set(a.tolist()) & set(b.tolist())) for a, b in pairs) / one.n_entries
