"""Resource functions of the rules: memory and time that a job asks for.

Each has Snakemake's signature, is pure, and grows with ``attempt``, so that a job killed
for memory or time is submitted again with more (the profiles set ``retries``). Memory in
MB, time in minutes. Inputs that do not exist yet make Snakemake print ``<TBD>``.
"""

import json
from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from medsae.config import estimates
from medsae.config.layout import Layout
from medsae.config.sae_section import Sae
from medsae.config.schema import Config, LanguageModel

Paths = Iterable[str]

# Rows decoded from Parquet, as a multiple of their size on disk, two copies included.
DECODED = 6
TABLE_PROCESS_BYTES = 1e9
# A CT of 512 × 512 × 1000 voxels with its masks, and an encoder of 0.5 billion parameters.
SCAN_BYTES = 4e9
IMAGE_ENCODER_BYTES = 4e9
# Widest embedding provided for (BiomedParse has 1536).
IMAGE_WIDTH = 2048
# Estimates are of steady work on an undisturbed machine.
TIME_MARGIN = 2
START_MIN = 10


def as_mb(n_bytes: float, attempt: int = 1) -> int:
    """``n_bytes`` in MB, ``attempt`` times, rounded up to 500 MB."""
    return 500 * ceil(n_bytes * attempt / 500e6)


def as_minutes(seconds: float, attempt: int = 1) -> int:
    """``seconds`` of work as minutes to ask for: a margin and the start-up, times ``attempt``."""
    return attempt * (START_MIN + ceil(TIME_MARGIN * seconds / 60))


def _of_processes(sae: Sae, own: float, state: float) -> float:
    """Bytes of the processes of a training: ``own`` each, ``state`` each or, with GPUs, once."""
    return sae.n_processes * own + (1 if sae.gpus else sae.n_processes) * state


def _bytes(path: str | Path) -> int:
    """Size of a file, or of the largest file of a folder."""
    place = Path(path)
    if place.is_dir():
        return max((file.stat().st_size for file in place.iterdir()), default=0)
    return place.stat().st_size


def _tokens(metadata: str, shards: Iterable[str]) -> int:
    """Tokens of those of ``shards`` that ``metadata.json`` describes.

    It may be of an earlier run with fewer shards while a plan is made.
    """
    described = json.loads(Path(metadata).read_text(encoding="utf-8"))["shards"]
    return sum(described[name]["tokens"] for name in shards if name in described)


class Requests:
    """The resource functions of one configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._models = {model.name: model for model in config.models}
        self._saes = {sae.name: sae for sae in config.saes}
        self._layout = Layout(config)

    def table_memory_mb(self, wildcards: Any, input: Paths, attempt: int = 1) -> int:
        """Tables are streamed file by file, so the largest input decides, not their sum."""
        largest = max(map(_bytes, input), default=0)
        return as_mb(TABLE_PROCESS_BYTES + DECODED * largest, attempt)

    def extraction_memory_mb(self, wildcards: Any, attempt: int = 1) -> int:
        """Host memory of a job that loads a language model: its weights pass through it."""
        model = self._model(wildcards)
        forward = 0 if model.gpus else estimates.forward_bytes(model)
        held = estimates.weights_bytes(model) + forward
        return as_mb(estimates.process_bytes(model.gpus) + held, attempt)

    def tokenization_runtime_min(self, wildcards: Any, input: Any, attempt: int = 1) -> int:
        """Time to tokenise all notes."""
        chars = _bytes(input.notes) / estimates.NOTE_CHAR_BYTES
        return as_minutes(chars / estimates.TOKENIZED_CHARS_PER_S, attempt)

    def extraction_runtime_min(self, wildcards: Any, input: Any, attempt: int = 1) -> int:
        """Time of the forward passes over one shard of tokens."""
        model = self._model(wildcards)
        folder = Path(input.tokens)
        folder.stat()  # where there is none yet, Snakemake is told of its own input
        stored = _bytes(folder / f"{wildcards.shard}.parquet") / estimates.TOKEN_ROW_BYTES
        computed = stored * estimates.window_overhead(model)
        seconds = estimates.extraction_seconds(model, int(wildcards.layer), computed)
        return as_minutes(seconds, attempt)

    def ablation_runtime_min(self, wildcards: Any, attempt: int = 1) -> int:
        """Time of the forward passes of the ablation, which run through every layer."""
        model = self._model(wildcards)
        n_tokens = estimates.ablation_tokens(self._config, model)
        seconds = estimates.extraction_seconds(model, model.size.n_layers - 1, n_tokens)
        return as_minutes(seconds, attempt)

    def sae_training_memory_mb(self, wildcards: Any, attempt: int = 1) -> int:
        """Host memory of the training of one SAE."""
        return self.saes_training_memory_mb([self._sae(wildcards)], wildcards, attempt)

    def saes_training_memory_mb(self, saes: Sequence[Sae], wildcards: Any, attempt: int = 1) -> int:
        """Host memory of SAEs that train in one job: a shuffle buffer, and the state of each.

        Every process has its own buffer and, on the CPU, its own copy of the state (at most: where
        processes share the latents, they hold one between them). On GPUs the host has the state
        once, while a checkpoint is written.
        """
        model, first = self._model(wildcards), saes[0]
        state = sum(estimates.sae_training_device_bytes(sae, model.size.d_model) for sae in saes)
        own = estimates.process_bytes(first.gpus) + estimates.shuffle_buffer_bytes(first, model)
        return as_mb(_of_processes(first, own, state), attempt)

    def sae_training_runtime_min(self, wildcards: Any, attempt: int = 1) -> int:
        """Time of the training of one SAE."""
        return self.saes_training_runtime_min([self._sae(wildcards)], wildcards, attempt)

    def saes_training_runtime_min(
        self, saes: Sequence[Sae], wildcards: Any, attempt: int = 1
    ) -> int:
        """Time of SAEs that train in one job, step by step in turn."""
        d_model = self._model(wildcards).size.d_model
        seconds = sum(estimates.sae_training_seconds(sae, d_model) for sae in saes)
        return as_minutes(seconds, attempt)

    def sae_encoding_memory_mb(self, wildcards: Any, attempt: int = 1) -> int:
        """Host memory of a pass of a trained SAE over activations, which are streamed."""
        sae, d_model = self._sae(wildcards), self._model(wildcards).size.d_model
        needed = estimates.sae_encoding_device_bytes(sae, d_model)
        return as_mb(estimates.process_bytes(sae.gpus) + needed, attempt)

    def calibration_runtime_min(self, wildcards: Any, input: Any, attempt: int = 1) -> int:
        """Time of a pass of a trained SAE over the activations it learned from."""
        return self._encoding_runtime_min(wildcards, input, self._layout.train_shards, attempt)

    def validation_runtime_min(self, wildcards: Any, input: Any, attempt: int = 1) -> int:
        """Time of a pass of a trained SAE over the held-out activations."""
        return self._encoding_runtime_min(wildcards, input, self._layout.val_shards, attempt)

    def topk_runtime_min(self, wildcards: Any, input: Any, attempt: int = 1) -> int:
        """Time of the export of the top latents of the shards of one part."""
        sae, d_model = self._sae(wildcards), self._model(wildcards).size.d_model
        n_tokens = _tokens(input.activations, self._layout.parts[wildcards.part])
        return as_minutes(estimates.topk_seconds(sae, d_model, n_tokens), attempt)

    def ner_memory_mb(self, wildcards: Any, attempt: int = 1) -> int:
        """Memory of GLiNER with a large encoder; notes are read shard by shard."""
        process = estimates.process_bytes(self._config.ner.gpus)
        return as_mb(process + estimates.NER_MODEL_BYTES, attempt)

    def ner_runtime_min(self, wildcards: Any, input: Any, attempt: int = 1) -> int:
        """Time of GLiNER over one shard of the notes."""
        corpus = self._config.corpus
        chars = (
            _bytes(input.notes) / estimates.NOTE_CHAR_BYTES / (corpus.shards + corpus.val_shards)
        )
        seconds = estimates.ner_seconds(self._config, chars / estimates.CHARS_PER_WORD)
        return as_minutes(seconds, attempt)

    def slicing_memory_mb(self, wildcards: Any, attempt: int = 1) -> int:
        """Memory of slicing: one scan at a time, with its masks."""
        return as_mb(SCAN_BYTES, attempt)

    def embedding_memory_mb(self, wildcards: Any, attempt: int = 1) -> int:
        """Host memory of an image encoder, which its weights pass through."""
        return as_mb(IMAGE_ENCODER_BYTES, attempt)

    def image_sae_memory_mb(self, wildcards: Any, attempt: int = 1) -> int:
        """Host memory of an SAE on embeddings, as that of one on hidden states."""
        sae = self._config.image_sae(wildcards.sae)
        state = estimates.sae_training_device_bytes(sae, IMAGE_WIDTH)
        own = estimates.process_bytes(sae.gpus) + 4 * IMAGE_WIDTH * sae.training.buffer_rows
        return as_mb(_of_processes(sae, own, state), attempt)

    def _encoding_runtime_min(
        self, wildcards: Any, input: Any, shards: Iterable[str], attempt: int
    ) -> int:
        sae, d_model = self._sae(wildcards), self._model(wildcards).size.d_model
        n_tokens = _tokens(input.activations, shards)
        return as_minutes(estimates.sae_encoding_seconds(sae, d_model, n_tokens), attempt)

    def _model(self, wildcards: Any) -> LanguageModel:
        return self._models[wildcards.model]

    def _sae(self, wildcards: Any) -> Sae:
        return self._saes[wildcards.sae]
