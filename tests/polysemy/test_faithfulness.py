"""What the model loses through the SAE equals plain forward passes with its output replaced."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from medsae.io import UserError
from medsae.polysemy.faithfulness import (
    FEW_PATIENTS,
    NO_GAP,
    NOT_APPLICABLE,
    _estimates,
    _sums,
    measure_faithfulness,
    sample_windows,
)
from tests.polysemy.tiny_model import llama, plain_losses, subject, tiny_sae


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads cost more than they bring at these sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tokens_table(n_documents=12, length=30):
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        [
            {
                "doc_id": f"d{d}",
                "patient_id": f"p{d // 2}",
                "token_index": i,
                "token_id": int(rng.integers(2, 97)),
            }
            for d in range(n_documents)
            for i in range(length)
        ]
    )


def test_faithfulness_of_a_perfect_reconstruction(monkeypatch):
    model, sae = llama(), tiny_sae()
    monkeypatch.setattr(sae, "reconstruct", lambda raw: raw.clone())
    windows = sample_windows(tokens_table().lazy(), 20, seed=0)
    assert windows["token_id"].list.len().max() == 20
    row = measure_faithfulness(subject(model, sae), windows, True, 99, 0).row(0, named=True)
    assert row["ce_reconstructed"] == pytest.approx(row["ce_clean"], abs=1e-5)
    assert row["ce_error_kept"] == pytest.approx(row["ce_clean"], abs=1e-5)
    assert row["fvu"] == 0
    assert row["check"] == NOT_APPLICABLE
    assert row["n_tokens"] == 12 * 19


def test_the_order_of_rows_does_not_matter():
    tokens, who = tokens_table(), subject(llama(), tiny_sae())
    expected = measure_faithfulness(who, sample_windows(tokens.lazy(), 20, 0), True, 99, 0)
    shuffled = tokens.sample(fraction=1.0, shuffle=True, seed=1)
    row = measure_faithfulness(who, sample_windows(shuffled.lazy(), 20, 0), True, 99, 0)
    assert_frame_equal(row, expected, rel_tol=1e-5)


def test_threads_do_not_change_a_bit():
    """A window has 40,960 numbers: a sum of more than 32,768 torch shares among threads."""
    windows = sample_windows(tokens_table(12, 256).lazy(), 256, 0)["token_id"].to_list()
    who, sums = subject(llama(hidden_size=160), tiny_sae(width=160)), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        sums.append(_sums(who, windows))
    torch.set_num_threads(1)
    assert (sums[0] == sums[1]).all()


def test_faithfulness_equals_plain_forward_passes():
    model, sae = llama(), tiny_sae()
    windows = sample_windows(tokens_table().lazy(), 20, seed=0)
    row = measure_faithfulness(subject(model, sae), windows, True, 99, 0).row(0, named=True)
    clean, rebuilt, ablated, seen = [], [], [], []

    def losses(window, replaced):
        def through(hidden):
            hidden = hidden.clone()
            hidden[0, 1:] = replaced(hidden[0, 1:])
            return hidden

        return plain_losses(model, torch.tensor([1, *window]), through)[1:]

    def noted(hidden):
        seen.append(hidden.clone())
        return hidden

    for window in windows["token_id"].to_list():
        clean.append(losses(window, noted))
        rebuilt.append(losses(window, sae.reconstruct))
    mean = torch.cat(seen).mean(0)
    for window in windows["token_id"].to_list():
        ablated.append(losses(window, mean.expand_as))
    assert row["ce_mean_ablated"] == pytest.approx(float(torch.cat(ablated).mean()), abs=1e-5)
    assert row["ce_clean"] == pytest.approx(float(torch.cat(clean).mean()), abs=1e-5)
    assert row["ce_reconstructed"] == pytest.approx(float(torch.cat(rebuilt).mean()), abs=1e-5)
    assert row["ce_reconstructed_low"] <= row["ce_reconstructed"] <= row["ce_reconstructed_high"]


def test_the_share_recovered_is_of_the_loss_that_the_mean_costs():
    # summed: clean, reconstructed, mean-ablated, error kept; ‖x − x̂‖², ‖x − x̄‖², tokens
    sums = np.array([[20.0, 30.0, 60.0, 20.0, 1.0, 4.0, 10.0]])
    estimates = _estimates(sums)
    assert estimates["loss_recovered"] == pytest.approx(0.75)
    assert estimates["fvu"] == pytest.approx(0.25)
    assert estimates["ce_mean_ablated"] == pytest.approx(6.0)


def test_a_trained_model_that_guesses_is_refused():
    model, sae = llama(), tiny_sae()
    with torch.no_grad():
        model.lm_head.weight.mul_(200)  # confident and wrong
    windows = sample_windows(tokens_table().lazy(), 20, seed=0)
    with pytest.raises(UserError, match="guessing"):
        measure_faithfulness(subject(model, sae), windows, False, 99, 0)
    row = measure_faithfulness(subject(model, sae), windows, True, 99, 0).row(0, named=True)
    assert row["ce_clean"] > math.log(97)


def test_a_splice_that_loses_the_error_it_should_keep_is_refused(monkeypatch):
    model, sae = llama(), tiny_sae()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # so that what it reads matters to its loss
    # so far off that adding the error back in float32 does not give the activation
    monkeypatch.setattr(sae, "reconstruct", lambda raw: raw + 1e8)
    windows = sample_windows(tokens_table().lazy(), 20, seed=0)
    with pytest.raises(RuntimeError, match="error kept moves the loss"):
        measure_faithfulness(subject(model, sae), windows, True, 99, 0)


def test_a_loss_that_is_not_shown_to_rise_gives_no_share():
    # of random weights the loss rises by chance: its interval reaches zero
    tokens = tokens_table()
    ids = np.random.default_rng(1).integers(2, 97, tokens.height)
    windows = sample_windows(tokens.with_columns(token_id=ids).lazy(), 20, seed=0)
    row = measure_faithfulness(subject(llama(), tiny_sae()), windows, True, 99, 0)
    row = row.row(0, named=True)
    assert row["ce_mean_ablated"] > row["ce_clean"]
    assert row["loss_recovered"] is None and row["reason"] == NO_GAP
    assert "not shown to raise" in NO_GAP


def test_few_held_out_patients_give_no_interval_and_no_share():
    windows = sample_windows(tokens_table(n_documents=8).lazy(), 20, seed=0)
    who = subject(llama(), tiny_sae())
    row = measure_faithfulness(who, windows, True, 99, 0).row(0, named=True)
    assert row["n_patients"] == 4 and row["reason"] == FEW_PATIENTS
    assert row["ce_clean"] > 0 and row["ce_clean_low"] is None and row["fvu_high"] is None
    assert row["loss_recovered"] is None
