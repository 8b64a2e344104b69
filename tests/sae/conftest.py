import pytest
import torch
from torch.nn import functional

from medsae.sae import SAEConfig, TrainConfig
from medsae.store import ShardWriter

torch.set_num_threads(1)  # the problems are tiny; more threads only wait for each other

ATOMS, WIDTH, ACTIVE = 48, 24, 3
ATOM_SEED = 1_000_003  # far from those of models, whose first decoder would be the atoms themselves


@pytest.fixture
def set_threads():
    """``torch.set_num_threads``, undone at the end: the order of sums is that of the threads."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def planted():
    """Rows made of three of 48 known unit atoms, and the atoms; far from the origin."""
    generator = torch.Generator().manual_seed(ATOM_SEED)
    atoms = functional.normalize(torch.randn(ATOMS, WIDTH, generator=generator), dim=1)

    def rows(n, seed):
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.rand(n, ATOMS, generator=generator).argsort(1)[:, :ACTIVE]
        weights = torch.rand(n, ACTIVE, generator=generator) + 0.5
        noise = 0.01 * torch.randn(n, WIDTH, generator=generator)
        mixed = functional.embedding_bag(chosen, atoms, per_sample_weights=weights, mode="sum")
        return mixed + noise + 2.0

    return rows, atoms


@pytest.fixture
def shards(planted, tmp_path):
    """(training shards, validation shards) of planted rows."""
    rows, _ = planted
    made = []
    for name, n, seed in (("a", 5000, 1), ("b", 3000, 2), ("val", 1200, 3)):
        path = tmp_path / f"{name}.safetensors"
        with ShardWriter(path, n, WIDTH, torch.float32, {}) as writer:
            writer.write(0, rows(n, seed))
        made.append(path)
    return made[:2], made[2:]


@pytest.fixture
def sae_config():
    def make(**changes):
        return SAEConfig(**{"n_latents": 96, "k": 3, "normalization": "none", **changes})

    return make


@pytest.fixture
def train_config():
    def make(steps, **changes):
        short = {
            "n_tokens": 256 * steps,
            "batch_size": 256,
            "learning_rate": 3e-3,
            "validate_every": 50,
            "checkpoint_every": 50,
            "log_every": 25,
        }
        return TrainConfig(**{**short, **changes})

    return make
