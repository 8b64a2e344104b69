"""Which SAEs train in one job: those of a group that nothing has trained yet.

Such a batch is named by its members, whose keys stand in its name. What has been trained keeps
the batch it was trained in: an SAE that joins its group later, or changes, is a batch of its
own, and no job of the others has other inputs than before.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence

from medsae.config.sae_section import Sae

KEY_DIGITS = 8
LARGEST = 16  # members of a batch: its name becomes part of a file name
TRAINED = "*/train_metrics.parquet"  # in a folder of checkpoints: written when a run ends


def training_digest(sae: Sae, seed: int) -> str:
    """Twelve hexadecimal digits of all that defines the weights of ``sae`` but the data."""
    settings = json.dumps([sae.defining(), seed], sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()[:12]


def key(sae: Sae, seed: int) -> str:
    """What stands for ``sae`` in the names of batches: its name and its training."""
    text = f"{sae.name} {training_digest(sae, seed)}"
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def members(batch: str, saes: Iterable[Sae], seed: int) -> list[Sae]:
    """Those of ``saes`` that belong to ``batch``."""
    keys = batch.split("-")
    return [sae for sae in saes if key(sae, seed) in keys]


def batch_of(
    sae: Sae,
    saes: Sequence[Sae],
    seed: int,
    made: Collection[str],
    is_trained: Callable[[Sae], bool],
) -> str | None:
    """The batch in which ``sae`` was or will be trained; None if it trains by itself.

    ``saes`` are all of the same activations, ``made`` the batches that have been trained on them;
    ``is_trained`` tells whether an SAE in none of those has weights already.
    """
    mine = key(sae, seed)
    if earlier := sorted(batch for batch in made if mine in batch.split("-")):
        return earlier[0]
    if sae.together is None or is_trained(sae):
        return None
    known = {each for batch in made for each in batch.split("-")}
    waiting = sorted(
        key(each, seed)
        for each in saes
        if each.together == sae.together and key(each, seed) not in known and not is_trained(each)
    )
    begin = waiting.index(mine) // LARGEST * LARGEST
    return "-".join(waiting[begin : begin + LARGEST])
