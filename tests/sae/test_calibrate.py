import math
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import medsae
from medsae.io import UserError
from medsae.sae import (
    SAEConfig,
    build_sae,
    calibrate,
    load_sae,
    normalized_values,
    save_calibrated,
)
from medsae.sae.initialize import initialize
from medsae.sae.quantile import BINS_PER_OCTAVE, QuantileSketch
from medsae.store import ActivationStore, ShardWriter


@settings(deadline=None, max_examples=50)
@given(
    counts=st.lists(st.integers(0, 400), min_size=1, max_size=6),
    quantile=st.sampled_from([0.5, 0.9, 0.99, 0.999]),
    n_parts=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_small_data_give_the_exact_quantile(counts, quantile, n_parts, seed):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    latents = latents[torch.randperm(latents.numel(), generator=generator)]
    values = torch.rand(latents.numel(), generator=generator).exp()
    sketch = QuantileSketch(len(counts), quantile, n_rows=400)
    assert sketch.is_exact
    for part, which in zip(values.chunk(n_parts), latents.chunk(n_parts), strict=True):
        sketch.add(which, part)
    for latent, found in enumerate(sketch.result().tolist()):
        own = values[latents == latent]
        if own.numel():
            assert found == pytest.approx(float(torch.quantile(own, quantile)), rel=1e-5)
        else:
            assert math.isnan(found)


def test_the_histogram_of_frequent_latents_keeps_its_stated_error():
    generator = torch.Generator().manual_seed(0)
    n = 200_000
    sketch = QuantileSketch(3, 0.999, n_rows=n, exact_bytes=1000)
    assert not sketch.is_exact
    kinds = [
        torch.randn(n, generator=generator).exp(),
        torch.rand(n, generator=generator) ** 4 + 1e-3,
        torch.rand(5000, generator=generator),  # rare enough to stay exact
    ]
    for part in zip(*(kind.chunk(10) for kind in kinds), strict=True):
        for latent, values in enumerate(part):
            sketch.add(torch.full((values.numel(),), latent), values)
    exact = [kind.double().quantile(0.999) for kind in kinds]
    found = sketch.result().double()
    allowed = 2 ** (1 / (2 * BINS_PER_OCTAVE)) - 1
    assert allowed < 0.0073
    for latent in (0, 1):
        assert abs(found[latent] / exact[latent] - 1) < allowed + 1e-3  # + interpolation
    assert found[2] == pytest.approx(float(exact[2]), rel=1e-6)


@pytest.mark.parametrize("growth", [2.0**3, 2.0**5, 1e3, 2.0**20])
def test_values_may_grow_far_beyond_the_first_batch(growth):
    generator = torch.Generator().manual_seed(0)
    sketch = QuantileSketch(2, 0.9, n_rows=20_000, exact_bytes=1000)
    assert not sketch.is_exact
    small = torch.rand(10_000, generator=generator) + 1e-3
    large = growth * torch.rand(10_000, generator=generator) + 1e-3
    for values in (small, large, small):
        sketch.add(torch.zeros(10_000, dtype=torch.int64), values)
    exact = float(torch.cat([small, large, small]).double().quantile(0.9))
    assert float(sketch.result()[0]) == pytest.approx(exact, rel=0.0083)


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc"
)
def test_memory_of_the_sketch_is_bounded_at_a_hundred_thousand_latents():
    """Most memory of a process that fills a sketch, beyond what it had before, in MB."""
    script = """
import re, torch
from medsae.sae.quantile import QuantileSketch
# VmHWM begins anew with the program; ru_maxrss holds what the parent had before
def most(): return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
n, generator = 100_000, torch.Generator().manual_seed(0)
values = torch.rand(1_000_000, generator=generator) + 0.1
latents = torch.randint(n, (1_000_000,), generator=generator)
before = most()
for n_rows in (600_000, 10**9):  # every latent exact, and the frequent ones estimated
    sketch = QuantileSketch(n, 0.999, n_rows)
    for _ in range(9):
        sketch.add(latents, values)
    if not sketch.is_exact:
        sketch.counts *= 10**4  # as if all were frequent
    sketch.result()
    print(sketch.is_exact, most() - before)
    del sketch
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(medsae.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    exact, estimated = (line.split() for line in done.stdout.splitlines())
    assert (exact[0], estimated[0]) == ("True", "False")
    assert max(float(exact[1]), float(estimated[1])) < 1000


@pytest.fixture
def calibrated(planted, tmp_path):
    rows, _ = planted
    path = tmp_path / "rows.safetensors"
    with ShardWriter(path, 4000, 24, torch.float32, {}) as writer:
        writer.write(0, rows(4000, 5))
    model = build_sae(SAEConfig(n_latents=96, k=3, normalization="token"), 24)
    initialize(model, rows(2000, 6), seed=0)
    return model, path, calibrate(model, [path])


def test_calibration_counts_gated_positive_activations(calibrated):
    model, path, calibration = calibrated
    values, indices = model.encode(ActivationStore([path]).read(0, 4000))
    fired = values > 0
    assert torch.equal(calibration.firing_count, torch.bincount(indices[fired], minlength=96))
    for latent in range(96):
        own = values[fired & (indices == latent)]
        if own.numel():
            assert calibration.feature_scale[latent] == pytest.approx(
                float(own.quantile(0.999)), rel=1e-5
            )
            assert calibration.mean_activation[latent] == pytest.approx(float(own.mean()), rel=1e-4)
            assert calibration.max_activation[latent] == own.max()
        assert bool(calibration.few_firings[latent]) == (own.numel() < 1000)


def test_a_calibrated_sae_is_saved_whole(calibrated, tmp_path, planted):
    model, _, calibration = calibrated
    folder = tmp_path / "calibrated"
    save_calibrated(folder, model, calibration)
    loaded = load_sae(folder)
    assert torch.equal(loaded.feature_scale, calibration.feature_scale)
    assert torch.equal(loaded.feature_hits, calibration.firing_count)
    table = pl.read_parquet(folder / "calibration.parquet")
    assert table["firing_count"].to_list() == calibration.firing_count.tolist()
    values, indices = loaded.encode(planted[0](50, 9))
    normal = normalized_values(values, indices, loaded.feature_scale)
    assert ((normal >= 0) & (normal <= 1)).all() and (normal[values > 0] > 0).all()


def test_shards_of_another_width_are_refused(calibrated, tmp_path):
    model, _, _ = calibrated
    path = tmp_path / "wide.safetensors"
    with ShardWriter(path, 3, 25, torch.float32, {}) as writer:
        writer.write(0, torch.ones(3, 25))
    with pytest.raises(UserError, match="25 columns where the SAE reads 24"):
        calibrate(model, [path])
