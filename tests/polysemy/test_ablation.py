"""Edited forward passes equal plain ones; what is removed is the latent's part and no more."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from medsae.polysemy.ablation import ablate, matched_latent
from medsae.polysemy.ablation_plan import choose_latents, choose_occurrences, read_documents
from medsae.polysemy.splice import decoder_blocks, edited_losses, read_window
from medsae.polysemy.subject import contributions, latent_codes
from tests.polysemy.ablate_in_process import study
from tests.polysemy.tiny_model import (
    LAYER,
    corpus,
    gemma,
    linked_table,
    llama,
    plain_losses,
    subject,
    tiny_sae,
)

IN_PROCESS = Path(__file__).with_name("ablate_in_process.py")
FOLDERS = (IN_PROCESS.parents[2] / "workflow" / "scripts", IN_PROCESS.parents[2])
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, FOLDERS))}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads cost more than they bring at these sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("make", [llama, gemma])
@pytest.mark.parametrize("max_tokens", [8192, 1])
def test_cached_edits_equal_full_forward_passes(make, max_tokens):
    model = make()
    tokens = torch.randint(0, 97, (20,))
    reading = read_window(model, LAYER, tokens)
    first, stop, n_scored = 9, 18, 7
    edited = reading.hidden[first:stop] + torch.randn(3, stop - first, 32)
    edited[0] = reading.hidden[first:stop]
    losses = edited_losses(model, LAYER, reading, edited, first, n_scored, max_tokens)
    for row in range(3):

        def edit(hidden, row=row):
            hidden = hidden.clone()
            hidden[0, first:stop] = edited[row]
            return hidden

        expected = plain_losses(model, tokens, edit)[stop - n_scored : stop]
        torch.testing.assert_close(losses[row], expected, rtol=1e-4, atol=1e-5)


def test_an_edit_leaves_the_model_as_it_was():
    model = llama()
    tokens = torch.randint(0, 97, (12,))
    before = model(input_ids=tokens[None]).logits
    reading = read_window(model, LAYER, tokens)
    edited_losses(model, LAYER, reading, torch.zeros(2, 5, 32), 4, 3)
    assert torch.equal(model(input_ids=tokens[None]).logits, before)


def test_a_window_that_begins_with_the_edit_needs_no_prefix():
    model = llama()
    tokens = torch.randint(0, 97, (10,))
    reading = read_window(model, LAYER, tokens)
    losses = edited_losses(model, LAYER, reading, reading.hidden[None, :9], 0, 9)
    torch.testing.assert_close(
        losses[0], plain_losses(model, tokens, lambda h: h), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("normalization", ["token", "none"])
def test_contributions_sum_to_the_reconstruction(normalization):
    sae = tiny_sae(normalization)
    raw = torch.randn(5, 32) * 30 + 4
    parts = contributions(sae, raw, latent_codes(sae, raw), torch.arange(64))
    one = sae.latent_contribution(raw, torch.tensor([7]))
    torch.testing.assert_close(parts[7], one)
    statistics = sae.normalize(raw)[1]
    nothing = statistics.restore(sae.b_pre.expand(5, -1))
    torch.testing.assert_close(parts.sum(0) + nothing, sae.reconstruct(raw), rtol=1e-4, atol=1e-3)


@pytest.fixture
def ablated(tmp_path):
    model, sae = llama(), tiny_sae()
    documents, occurrences = corpus(model, sae)
    latents = occurrences["latent_ids"][0].to_list()[:2]
    linked = linked_table(latents)
    pairs = choose_occurrences(occurrences.lazy(), choose_latents(linked, 5), 20, seed=3)
    who = subject(model, sae)
    needed = {doc_id: documents[doc_id] for doc_id in pairs["doc_id"].unique()}
    return who, needed, linked, pairs, ablate(who, pairs, needed, linked, tmp_path / "parts", 3)


def test_delta_ce_is_that_of_the_definition(ablated):
    who, documents, _, _, table = ablated
    assert table.height and set(table["linked"]) == {True, False}
    for row in table.iter_rows(named=True):
        window = torch.tensor([1, *documents[row["doc_id"]][:18]])  # 6 tokens after position 11

        def remove(hidden, row=row):
            hidden = hidden.clone()
            part = hidden[0, [11, 12]]
            missing = who.sae.latent_contribution(part, torch.tensor([row["latent_id"]]))
            error = part - who.sae.reconstruct(part)
            hidden[0, [11, 12]] = who.sae.reconstruct(part) - missing + error
            return hidden

        without = plain_losses(who.model, window, remove)[12:].double().mean()
        clean = plain_losses(who.model, window, lambda h: h)[12:].double().mean()
        assert row["n_tokens"] == 6
        assert row["delta_ce"] == pytest.approx(float(without - clean), abs=2e-5)
        assert row["activation"] > 0


def test_every_linked_latent_that_fires_gives_a_row_and_a_control(ablated):
    _, _, linked, pairs, table = ablated
    rows = table.filter("linked")
    assert rows.height == pairs.height
    assert rows["latent_id"].is_in(linked["latent_id"].implode()).all()
    control = table.filter(~pl.col("linked"))
    assert set(control["matched_to"]) <= set(linked["latent_id"])
    assert not control["latent_id"].is_in(linked["latent_id"].implode()).any()
    keys = ["occurrence_id", "latent_id"]
    assert control.select(keys).is_unique().all()
    own = rows.filter("on_sense")
    assert (own["occurrence_sense"] == own["sense"]).all()


def test_all_latents_of_an_occurrence_share_a_pass_and_its_prefix_is_read_once(ablated, tmp_path):
    who, documents, linked, pairs, table = ablated
    rows = {"first": [], "last": []}
    blocks = decoder_blocks(who.model)
    handles = [
        # the attention: in an edited pass the lower blocks are called, but do nothing
        block.self_attn.register_forward_hook(
            lambda _, given, keywords, made, name=name: rows[name].append(len(made[0])),
            with_kwargs=True,
        )
        for name, block in (("first", blocks[0]), ("last", blocks[-1]))
    ]
    assert ablate(who, pairs, documents, linked, tmp_path / "counted", 3).equals(table)
    for handle in handles:
        handle.remove()
    n_removed = table.group_by("occurrence_id").len()["len"].to_list()
    assert rows["first"] == [1] * len(documents)
    edited = [n for n in rows["last"] if n > 1]
    assert sorted(edited) == sorted(n + 1 for n in n_removed) and max(edited) > 3
    assert len(rows["last"]) == len(documents) + len(n_removed)


def test_the_order_of_documents_does_not_matter(ablated, tmp_path):
    who, documents, linked, pairs, table = ablated
    turned = dict(reversed(documents.items()))
    again = ablate(who, pairs, turned, linked.reverse(), tmp_path / "turned", 3)
    assert again.equals(table)


def test_a_killed_run_goes_on_and_row_order_does_not_matter(ablated, tmp_path):
    who, documents, linked, pairs, table = ablated
    parts = tmp_path / "other"
    shuffled = pairs.sample(fraction=1.0, shuffle=True, seed=1)
    ablate(
        who,
        shuffled.sort("doc_id", "occurrence_id", "sense", "latent_id"),
        documents,
        linked,
        parts,
        3,
    )
    again = ablate(None, pairs, documents, linked, parts, 3)  # no model needed: all parts are there
    assert again.equals(table)


def test_a_killed_process_goes_on_where_it_stopped(tmp_path):
    """SIGKILL in the middle of the second part of three; what was done is not done again."""
    parts = tmp_path / "killed"

    def run(kill_at):
        command = [sys.executable, str(IN_PROCESS), str(parts), str(kill_at)]
        done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
        return done.returncode, done.stdout.split()

    code, _ = run(21)
    assert code == -signal.SIGKILL
    assert len(list(parts.glob("*.parquet"))) == 1
    code, (digest, n_documents) = run(-1)
    assert code == 0 and int(n_documents) == 40 - 16
    n_rows, whole = study(tmp_path / "whole")
    assert n_rows > 100 and digest == whole


@pytest.mark.parametrize("n_shards", [1, 3])
def test_documents_are_the_same_from_any_number_of_shards(tmp_path, n_shards):
    documents = {f"d{number}": np.arange(5 + number) * 3 for number in range(8)}
    rows = pl.DataFrame(
        [
            {"doc_id": doc_id, "token_index": index, "token_id": token}
            for doc_id, tokens in documents.items()
            for index, token in enumerate(tokens)
        ]
    )
    paths = []
    for shard in range(n_shards):
        here = rows.filter(pl.col("doc_id").str.slice(1).cast(pl.Int64) % n_shards == shard)
        paths.append(tmp_path / f"{shard}.parquet")
        here.sample(fraction=1, shuffle=True, seed=shard).write_parquet(paths[-1])
    wanted = pl.Series([f"d{number}" for number in (6, 1, 3)])
    read = read_documents(paths, wanted)
    assert read.keys() == set(wanted)
    for doc_id, tokens in read.items():
        assert tokens.tolist() == documents[doc_id].tolist()


def test_threads_do_not_change_a_bit(tmp_path):
    model, sae = llama(), tiny_sae()
    documents, occurrences = corpus(model, sae)
    linked = linked_table(list(range(64)))
    pairs = choose_occurrences(occurrences.lazy(), choose_latents(linked, 64), 20, seed=0)
    who, tables = subject(model, sae), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        tables.append(ablate(who, pairs, documents, linked, tmp_path / f"{threads}", 0))
    torch.set_num_threads(1)
    assert tables[0].height
    assert tables[0].equals(tables[1])


def test_a_long_document_is_read_through_a_window(tmp_path):
    model, sae = llama(), tiny_sae()
    documents, occurrences = corpus(model, sae, length=24)
    long = {
        doc_id: np.concatenate([np.full(30, 5), tokens]) for doc_id, tokens in documents.items()
    }
    moved = occurrences.with_columns(token_positions=pl.lit([40, 41]))
    linked = linked_table(list(range(64)))
    pairs = choose_occurrences(moved.lazy(), choose_latents(linked, 64), 20, seed=0)
    table = ablate(subject(model, sae, ctx_len=20), pairs, long, linked, tmp_path / "p", 0)
    assert table.height
    assert (table["n_tokens"] == 6).all()


def test_a_term_at_the_end_of_its_note_gives_no_row(tmp_path):
    model, sae = llama(), tiny_sae()
    documents, occurrences = corpus(model, sae)
    cut = {doc_id: tokens[:12] for doc_id, tokens in documents.items()}
    linked = linked_table(occurrences["latent_ids"][0].to_list()[:2])
    pairs = choose_occurrences(occurrences.lazy(), choose_latents(linked, 5), 20, seed=3)
    assert ablate(subject(model, sae), pairs, cut, linked, tmp_path / "p", 3).is_empty()


def test_occurrences_are_spread_over_patients_and_capped():
    occurrences = pl.DataFrame(
        {
            "occurrence_id": range(40),
            "doc_id": [f"d{i}" for i in range(40)],
            "patient_id": [f"p{min(i, 9)}" for i in range(40)],  # the last patient has 31
            "lemma": "block",
            "sense": ["cardiac"] * 38 + [None, None],
            "token_positions": [[1]] * 40,
            "latent_ids": [[4, 2]] * 40,
        }
    )
    latents = pl.DataFrame({"lemma": ["block"], "sense": ["cardiac"], "latent_id": [2]})
    chosen = choose_occurrences(occurrences.lazy(), latents, 10, seed=0)
    assert chosen["patient_id"].n_unique() == 10
    assert chosen.height == 10
    assert chosen.filter(pl.col("patient_id") == "p9").height == 1
    shuffled = occurrences.sample(fraction=1.0, shuffle=True, seed=5)
    assert choose_occurrences(shuffled.lazy(), latents, 10, seed=0).equals(chosen)


def test_every_latent_has_its_own_occurrences_on_both_sides():
    """One latent fires everywhere, one rarely: the rare one is not left with the other's few."""
    occurrences = pl.DataFrame(
        {
            "occurrence_id": range(60),
            "doc_id": [f"d{i}" for i in range(60)],
            "patient_id": [f"p{i}" for i in range(60)],
            "lemma": "block",
            "sense": ["cardiac", "neurological"] * 30,
            "token_positions": [[1]] * 60,
            "latent_ids": [[1, 2] if i % 5 == 0 else [1] for i in range(60)],
        }
    )
    latents = pl.DataFrame({"lemma": "block", "sense": ["cardiac"] * 2, "latent_id": [1, 2]})
    chosen = choose_occurrences(occurrences.lazy(), latents, 5, seed=1)
    counts = chosen.group_by("latent_id", "on_sense").len().sort("latent_id", "on_sense")
    assert counts["len"].to_list() == [5] * 4
    both = chosen.filter(pl.col("latent_id") == 1)["occurrence_id"]
    assert both.is_in(chosen.filter(pl.col("latent_id") == 2)["occurrence_id"].implode()).any()


def test_only_confirmed_latents_are_removed_strongest_first():
    table = linked_table([5, 3, 8]).with_columns(confirmed=pl.Series([True, False, True]))
    assert choose_latents(table, 1)["latent_id"].to_list() == [5]
    assert choose_latents(table, 5)["latent_id"].to_list() == [5, 8]
    none = choose_latents(table.with_columns(confirmed=False), 5)
    assert none.is_empty()


@pytest.mark.parametrize("alike", ["strength", "counts"])
def test_a_control_is_like_its_latent(alike):
    of_each = {"strength": np.full(1000, 7.0), "counts": np.full(1000, 100)}
    of_each[alike][:50] = np.geomspace(1, 1e6, 50)
    strength, counts = of_each.values()
    free = np.arange(1000) < 50
    free[25] = False
    drawn = {
        matched_latent(25, strength, counts, free, np.random.default_rng(seed))
        for seed in range(50)
    }
    assert drawn == {22, 23, 24, 26, 27} or drawn == {23, 24, 26, 27, 28}
    assert (
        matched_latent(25, strength, counts, np.zeros(1000, bool), np.random.default_rng(0)) is None
    )
