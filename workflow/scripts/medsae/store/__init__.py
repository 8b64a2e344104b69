"""Matrices on disk: sharded, self-checking, streamed in order or shuffled."""

from medsae.store.shard import Shard, open_shard
from medsae.store.store import ActivationStore
from medsae.store.stream import ShuffledBatches
from medsae.store.writer import ShardWriter

__all__ = ["ActivationStore", "Shard", "ShardWriter", "ShuffledBatches", "open_shard"]
