"""Ablation of a tiny model in a process of its own, which may kill itself.

python ablate_in_process.py PARTS KILL_AT -> digest of the rows, documents read by this process.
KILL_AT: the document at which it sends itself SIGKILL, counted from 0; -1 for none.
"""

import hashlib
import os
import signal
import sys
from pathlib import Path

import torch

from medsae.polysemy import ablation
from medsae.polysemy.ablation_plan import choose_latents, choose_occurrences
from tests.polysemy.tiny_model import corpus, linked_table, llama, subject, tiny_sae


def study(parts: Path) -> tuple[int, str]:
    """Ablate all latents in 40 documents; rows and their digest."""
    model, sae = llama(), tiny_sae()
    documents, occurrences = corpus(model, sae, n_documents=40)
    linked = linked_table(list(range(64)))
    pairs = choose_occurrences(occurrences.lazy(), choose_latents(linked, 64), 40, seed=3)
    table = ablation.ablate(subject(model, sae), pairs, documents, linked, parts, 3)
    digest = hashlib.sha256(table.drop("delta_ce").write_csv().encode()).hexdigest()
    return table.height, f"{digest}:{table['delta_ce'].sum():.6f}"


def main(parts: Path, kill_at: int) -> None:
    torch.set_num_threads(1)
    ablate_document, n_read = ablation.ablate_document, 0

    def counting(*arguments):
        nonlocal n_read
        if n_read == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        n_read += 1
        return ablate_document(*arguments)

    ablation.ablate_document = counting
    _, digest = study(parts)
    print(digest, n_read)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
