"""Ours: the trainer of ``medsae.sae``, as the workflow runs it, on batches from memory."""

import sys
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "workflow" / "scripts"))

from medsae.device import fast_float32_products
from medsae.sae import SAEConfig, TrainConfig, build_sae
from medsae.sae.initialize import SAMPLE_ROWS, initialize
from medsae.sae.trainer import Trainer

COMPUTE = "float32"


def make(architecture, train, load, compute=COMPUTE):
    config = SAEConfig(architecture, load.n_latents, load.k, normalization="none")
    model = build_sae(config, load.d_model).to(train.device)
    context = fast_float32_products()
    context.__enter__()  # for the rest of the process
    initialize(model, train[:SAMPLE_ROWS], load.seed)
    trainer = Trainer(
        model,
        TrainConfig(
            n_tokens=load.batch_size * 1_000,
            batch_size=load.batch_size,
            learning_rate=load.learning_rate,
            warmup=0,
            decay="none",
            seed=load.seed,
            compute=compute,
        ),
    )
    make.context = context

    def step(batch):
        trainer.step(model.normalize(batch)[0])

    step.selection = model.arithmetic.value

    @cache
    def finish():
        """As validation does in the workflow, with the rows that no batch holds."""
        unseen = train[load.n_train // load.batch_size * load.batch_size :]
        if model.selects_by_batch and len(unseen):
            model.see_held_out(model.normalize(unseen)[0], 1.0)

    def evaluate(rows):
        finish()
        code = model.sparse_code(rows)
        return model.reconstruct(rows), code.pattern.dense(code.values) > 0

    return step, evaluate
