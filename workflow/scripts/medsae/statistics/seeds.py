"""Random streams named by what they are for, so that no result depends on the order of work."""

import zlib

import numpy as np


def stream(seed: int, *names: object) -> np.random.Generator:
    """A generator fixed by ``seed`` and ``names`` (their ``str``), independent of all others.

    The same (seed, names) gives the same numbers whichever lemma, shard or thread comes
    first. CRC-32 turns names into words for NumPy's ``SeedSequence``, which mixes them.
    """
    words = [zlib.crc32(str(name).encode("utf-8")) for name in names]
    return np.random.default_rng(np.random.SeedSequence([seed, len(words), *words]))
