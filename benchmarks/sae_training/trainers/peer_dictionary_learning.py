"""dictionary_learning: the update of its trainers."""

from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import (
    MatryoshkaBatchTopKTrainer,
)
from dictionary_learning.trainers.top_k import TopKTrainer

GROUP_SHARES = [1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2]


def make(architecture, train, load):
    kinds = {
        "topk": TopKTrainer,
        "batch_topk": BatchTopKTrainer,
        "matryoshka": MatryoshkaBatchTopKTrainer,
    }
    extra = {"group_fractions": GROUP_SHARES} if architecture == "matryoshka" else {}
    trainer = kinds[architecture](
        steps=10_000,
        activation_dim=load.d_model,
        dict_size=load.n_latents,
        k=load.k,
        layer=0,
        lm_name="none",
        lr=load.learning_rate,
        warmup_steps=0,
        threshold_start_step=0,
        threshold_beta=0.99,
        seed=load.seed,
        device="cpu",
        **extra,
    )
    done = [0]

    def step(batch):
        trainer.update(done[0], batch)
        done[0] += 1

    def evaluate(rows):
        reconstruction, codes = trainer.ae(rows, output_features=True)
        return reconstruction, codes > 0

    return step, evaluate
