"""Shards are divided among jobs: all of them, each once, evenly, in order."""

import pytest

from medsae.config import Layout, parse_config
from medsae.config.layout import SHARDS_PER_PART

CONFIG = {
    "models": [{"name": "m", "source": "m", "layers": [1]}],
    "saes": [{"name": "s", "n_latents": 8, "k": 2}],
}


@pytest.mark.parametrize(
    ("shards", "val_shards", "n_parts"),
    [(1, 1, 1), (15, 1, 1), (16, 1, 2), (64, 4, 5), (10_000, 10_000, 1250)],
)
def test_the_parts_hold_every_shard_once(shards: int, val_shards: int, n_parts: int):
    corpus = {"name": "c", "notes": "n.csv", "shards": shards, "val_shards": val_shards}
    layout = Layout(parse_config(CONFIG | {"corpus": corpus}))
    sizes = [len(part) for part in layout.parts.values()]
    assert [name for part in layout.parts.values() for name in part] == layout.shards
    assert len(sizes) == n_parts
    assert max(sizes) <= SHARDS_PER_PART and max(sizes) - min(sizes) <= 1
