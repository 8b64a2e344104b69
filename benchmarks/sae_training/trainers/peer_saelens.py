"""SAELens: its SAETrainer's step. Given centred data, for it has no data-based b_dec."""

from sae_lens.config import SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.matryoshka_batchtopk_sae import (
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
)
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)


def make(architecture, train, load):
    size = {"d_in": load.d_model, "d_sae": load.n_latents, "k": load.k, "device": "cpu"}
    if architecture == "topk":
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(**size))
    elif architecture == "batch_topk":
        sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**size))
    else:
        widths = [int(load.n_latents * share) for share in SHARES]
        sae = MatryoshkaBatchTopKTrainingSAE(
            MatryoshkaBatchTopKTrainingSAEConfig(**size, matryoshka_widths=widths)
        )
    mean = train[:32_768].mean(0)
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=load.batch_size * 1_000,
            train_batch_size_samples=load.batch_size,
            lr=load.learning_rate,
            lr_end=load.learning_rate,
        ),
        sae,
        data_provider=iter(()),
    )

    def step(batch):
        trainer.step(batch - mean)
        trainer.n_training_steps += 1

    def evaluate(rows):
        codes = sae.encode(rows - mean)
        codes = codes.to_dense() if codes.is_sparse else codes
        return sae.decode(codes) + mean, codes > 0

    return step, evaluate
