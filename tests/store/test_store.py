import os
import subprocess
import sys
import time
import weakref

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medsae.io import UserError
from medsae.store import ActivationStore, stream
from medsae.store.shuffle import ShuffleOrder

SETTINGS = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def take(stream, n):
    return [batch[:, 0].to(torch.int64) for batch, _ in zip(stream, range(n), strict=False)]


def test_shards_form_one_row_space(write_shards):
    store = ActivationStore(write_shards([5, 0, 7, 3]))
    assert store.n_rows == 15
    assert store.read(3, 13)[:, 0].tolist() == list(range(3, 13))
    assert store.rows(torch.tensor([14, 0, 5, 4, 12]))[:, 0].tolist() == [14, 0, 5, 4, 12]
    assert [b.shape[0] for b in store.batches(4)] == [4, 4, 4, 3]
    assert torch.cat(list(store.batches(4, start=2)))[:, 0].tolist() == list(range(2, 15))


READER = """
import resource, sys
import torch
from medsae.store import ActivationStore

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
store = ActivationStore(sys.argv[1:])
batches = {
    "in order": list(store.batches(50)),
    "shuffled": [batch for batch, _ in zip(store.shuffled(50, 0, 100, n_threads=2), range(6))],
    "resident": [batch for batch, _ in zip(store.shuffled(50, 0, 300), range(6))],
    "by number": [store.rows(torch.arange(300))],
}
for name, read in batches.items():
    assert torch.cat(read)[:, 0].sort().values.tolist() == list(range(300)), name
"""


def test_there_may_be_more_shards_than_open_files(write_shards, pytestconfig):
    environment = os.environ | {"PYTHONPATH": str(pytestconfig.rootpath / "workflow/scripts")}
    command = [sys.executable, "-c", READER, *map(str, write_shards([3] * 100))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_shards_that_differ_are_refused(write_shards):
    paths = write_shards([4]) + write_shards([4], n_columns=5, folder="wider")
    with pytest.raises(UserError, match="5 columns"):
        ActivationStore(paths)


@given(
    n_rows=st.integers(1, 300),
    chunk_rows=st.integers(1, 60),
    pool_rows=st.integers(1, 400),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 5),
)
def test_an_epoch_is_a_permutation_of_all_rows(n_rows, chunk_rows, pool_rows, seed, epoch):
    order = ShuffleOrder(n_rows, chunk_rows, pool_rows, seed)
    seen = []
    for number, ranges in enumerate(order.pools(epoch)):
        rows = torch.cat([torch.arange(a, b) for a, b in ranges])
        assert rows.numel() <= max(pool_rows, chunk_rows)
        seen.append(rows[order.pool_permutation(epoch, number, rows.numel())])
    assert torch.cat(seen).sort().values.tolist() == list(range(n_rows))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(stream, "CHUNK_BYTES", 60)  # five rows of the shards below


@SETTINGS
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(lambda s: sum(s) > 0),
    batch_size=st.integers(1, 17),
    buffer_rows=st.integers(2, 200),
    seed=st.integers(0, 1000),
    n_threads=st.integers(1, 4),
)
def test_every_epoch_gives_every_row_once(
    write_shards, small_chunks, sizes, batch_size, buffer_rows, seed, n_threads
):
    store = ActivationStore(write_shards(sizes))
    n = store.n_rows
    batches = take(store.shuffled(batch_size, seed, buffer_rows, 0, n_threads), 3 * n)
    rows = torch.cat(batches)
    for epoch in range(3):
        assert rows[epoch * n : (epoch + 1) * n].sort().values.tolist() == list(range(n))


@pytest.mark.parametrize("buffer_rows", [40, 10_000])
def test_a_stream_resumes_at_any_batch_whatever_its_threads(
    write_shards, small_chunks, buffer_rows
):
    store = ActivationStore(write_shards([57, 30, 44]))
    whole = take(store.shuffled(8, 3, buffer_rows), 60)
    for at in (0, 1, 7, 16, 17, 45):
        resumed = store.shuffled(8, 3, buffer_rows, position=8 * at, n_threads=4)
        assert all(map(torch.equal, take(resumed, 60 - at), whole[at:]))
        assert resumed.position == 8 * 61  # zip draws one batch more than it keeps


def test_no_more_than_the_buffer_is_ever_held(write_shards, small_chunks, monkeypatch):
    """Pools are counted from their allocation until nothing refers to them any more."""
    held, n_pools = {}, 0
    start = stream.ShuffledBatches._start_loading

    def counted(self, ranges, emission):
        nonlocal n_pools
        pool, futures = start(self, ranges, emission)
        held[n_pools] = pool.shape[0]
        weakref.finalize(pool.untyped_storage(), held.pop, n_pools)
        n_pools += 1
        wait_for(lambda: sum(held.values()) <= 100 / world_size + 20)
        return pool, futures

    monkeypatch.setattr(stream.ShuffledBatches, "_start_loading", counted)
    monkeypatch.setattr(stream.ShuffledBatches, "_read_all", lambda _: 1 / 0)
    store = ActivationStore(write_shards([400, 353, 250]))
    for world_size in (1, 3):
        n_pools = 0
        batches = store.shuffled(9, 0, 100, n_threads=3, rank=0, world_size=world_size)
        for _ in range(250):
            next(batches)  # and forget it, as training does
        batches.close()
        assert n_pools > 40
        assert not held


def wait_for(condition, seconds=10):
    """A reader thread lets go of a pool a moment after it has said that it is done."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_the_order_does_not_depend_on_how_rows_are_cut_into_shards(write_shards, small_chunks):
    one = take(ActivationStore(write_shards([131], folder="one")).shuffled(8, 3, 40), 40)
    many = take(ActivationStore(write_shards([7, 100, 24])).shuffled(8, 3, 40), 40)
    assert all(map(torch.equal, one, many))


@pytest.mark.parametrize("buffer_rows", [40, 10_000])
@pytest.mark.parametrize("position", [0, 24])
def test_ranks_together_give_the_single_process_batches(
    write_shards, small_chunks, buffer_rows, position
):
    store = ActivationStore(write_shards([57, 30, 44]))
    whole = take(store.shuffled(8, 3, buffer_rows, position), 50)
    ranks = [
        take(store.shuffled(8, 3, buffer_rows, position, rank=r, world_size=4), 50)
        for r in range(4)
    ]
    for number, batch in enumerate(whole):
        assert torch.equal(torch.cat([rank[number] for rank in ranks]), batch)


def test_epochs_and_seeds_have_different_orders(write_shards):
    store = ActivationStore(write_shards([400]))
    (first, second), (other, _) = (take(store.shuffled(400, s, 1000), 2) for s in (0, 1))
    assert not torch.equal(first, second) and not torch.equal(first, other)


def test_rows_far_apart_meet_in_one_batch(write_shards, small_chunks):
    """With a buffer of a tenth of the store, batches still sample the whole row space."""
    store = ActivationStore(write_shards([4000]))
    batches = take(store.shuffled(100, 0, 800), 40)
    spread = torch.stack([b.float().std() for b in batches]).mean()
    assert spread > 0.8 * torch.arange(4000.0).std()


def test_damage_is_named_from_within_the_shuffled_stream(write_shards):
    paths = write_shards([50, 50])
    damaged = bytearray(paths[1].read_bytes())
    damaged[-5] ^= 1
    paths[1].write_bytes(damaged)
    for buffer_rows in (20, 1000):
        with pytest.raises(UserError, match=r"001\.safetensors: rows 0 to 49 fail"):
            take(ActivationStore(paths).shuffled(10, 0, buffer_rows, n_threads=2), 12)
