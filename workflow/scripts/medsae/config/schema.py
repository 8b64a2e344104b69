"""The configuration: every key with its meaning, default and bounds, here and in ``*_section``.

``config/config.yaml`` and its siblings state only what differs from these defaults;
``config/README.md`` is generated from the descriptions and held to them by a test.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from medsae.config.imaging_section import ImageEncoder, Imaging
from medsae.config.ner_section import Ner
from medsae.config.polysemy_section import Polysemy
from medsae.config.sae_section import Sae
from medsae.config.section import RUNTIME, FolderName, Section


class Corpus(Section):
    """The notes under study."""

    name: FolderName = Field(description="Folder of this corpus under the results directory.")
    notes: str = Field(
        description="The notes: a .csv, .csv.gz, .parquet or .jsonl file with one row per note."
    )
    text_column: str = Field("text", description="Column that holds the text of a note.")
    doc_id_column: str = Field("doc_id", description="Column that identifies a note.")
    patient_id_column: str | None = Field(
        None,
        description="Column that identifies the patient. Without it each note counts as its own "
        "patient, and the report says so.",
    )
    max_rows: int | None = Field(
        None, ge=1, description="Study only this many notes, drawn with `seed`."
    )
    drop_empty_text: bool = Field(
        False, description="Drop and count notes without text instead of refusing the file."
    )
    val_fraction: float = Field(
        0.05, gt=0, lt=1, description="Share of the patients held out to validate the SAE."
    )
    shards: int = Field(
        1, ge=1, le=10_000, description="Pieces the training notes are cut into, one job each."
    )
    val_shards: int = Field(
        1, ge=1, le=10_000, description="Pieces the validation notes are cut into."
    )
    gold_spans: str | None = Field(
        None, description="Gold entity spans (JSONL: doc_id, start, end, entity_group)."
    )
    gold_senses: str | None = Field(
        None, description="Gold senses (CSV: doc_id, start, end, term, sense)."
    )


class DemoCorpus(Section):
    """The synthetic notes that `make demo` studies."""

    n_notes: int = Field(600, ge=20, description="Notes under study.")
    n_training_notes: int = Field(
        500, ge=20, description="Notes of other patients, used only to adapt the NER model."
    )


class ModelSize(Section):
    """The size of a language model: memory, time and disk are requested from it.

    The study itself reads the model's own configuration; a wrong value here only makes
    the requests wrong.
    """

    parameters_b: float = Field(8.0, gt=0, description="Parameters of the model, in billions.")
    n_layers: int = Field(32, ge=1, description="Decoder blocks of the model.")
    d_model: int = Field(4096, ge=1, description="Width of its hidden states.")


class LanguageModel(Section):
    """One language model under study."""

    name: FolderName = Field(description="Folder of this model under the corpus.")
    source: str = Field(
        description="A hub id, a local folder, or `package:NAME/FILE.gguf` for weights inside an "
        "installed Python package."
    )
    layers: list[Annotated[int, Field(ge=0)]] = Field(
        min_length=1,
        description="Decoder blocks whose output is studied; 0 is the first block.",
    )
    random_weights: bool = Field(
        False,
        description="Keep the architecture and tokenizer but draw the weights at random: the "
        "control for what lexical context alone explains. A model is compared with that of the "
        "same `source`, else with the first.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "bfloat16", description="Precision the model computes in."
    )
    store_dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "bfloat16", description="Precision the activations are stored in."
    )
    quantization: Literal["none", "8bit", "4bit"] = Field(
        "none",
        description="Load the weights in 8 or 4 bits, where a GPU cannot hold them otherwise. "
        "Needs the package bitsandbytes (requirements-quantization.txt); hidden states are still "
        "computed in `dtype`.",
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(
        "sdpa", description="Attention implementation."
    )
    ctx_len: int = Field(512, ge=8, description="Tokens of a window, the BOS token not counted.")
    stride: int | None = Field(
        None,
        ge=1,
        description="Tokens from one window's start to the next; the rest of the window is left "
        "context. Default: ctx_len, no overlap.",
    )
    tokens_per_batch: int = Field(
        8192,
        ge=1,
        description="Tokens, padding included, of one forward pass. Another value rounds the "
        "last digits of hidden states differently; stored ones are kept.",
        json_schema_extra=RUNTIME,
    )
    trust_remote_code: bool = Field(
        False, description="Run code that the model repository carries. Off unless you trust it."
    )
    gpus: int = Field(0, ge=0, description="GPUs of one extraction or ablation job.")
    size: ModelSize = Field(
        ModelSize(), description="What memory, time and disk are estimated from."
    )
    saes: list[str] | None = Field(
        None, description="Names of the SAEs trained on this model. Default: all."
    )

    @model_validator(mode="after")
    def _stride_within_window(self) -> "LanguageModel":
        if self.stride is not None and self.stride > self.ctx_len:
            raise ValueError(
                f"stride {self.stride} is larger than ctx_len {self.ctx_len}, which would skip "
                "tokens: lower stride"
            )
        return self


class Config(Section):
    """The whole configuration."""

    results_dir: str = Field("results", description="Where everything is written.")
    seed: int = Field(42, ge=0, description="Seed of every random choice.")
    corpus: Corpus = Field(
        Corpus(name="notes", notes=""), description="The notes under study; required with `models`."
    )
    demo_corpus: DemoCorpus = Field(
        DemoCorpus(), description="The synthetic notes of the embedded default."
    )
    models: list[LanguageModel] = Field([], description="Language models under study.")
    saes: list[Sae] = Field(
        [], description="Sparse autoencoders to train on language models; required with `models`."
    )
    ner: Ner = Field(Ner(), description="Entity recognition.")
    polysemy: Polysemy = Field(Polysemy(), description="The polysemy study.")
    imaging: Imaging | None = Field(None, description="The study of CT and MR images, if any.")

    @field_validator("models", "saes")
    @classmethod
    def _names_are_unique(cls, items: list) -> list:
        names = [item.name for item in items]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the name '{name}' is used twice: give each entry its own")
        return items

    @model_validator(mode="after")
    def _something_is_studied(self) -> "Config":
        if not self.models and self.imaging is None:
            raise ValueError("there is nothing to study: add `models` or `imaging`")
        for name in ("corpus", "saes") if self.models else ():
            if name not in self.model_fields_set or not getattr(self, name):
                raise ValueError(f"key '{name}' is missing: add it")
        if self.models and self.imaging and self.imaging.name == self.corpus.name:
            raise ValueError(
                f"corpus and imaging are both named '{self.corpus.name}': give each its own"
            )
        return self

    @model_validator(mode="after")
    def _saes_exist(self) -> "Config":
        known = [sae.name for sae in self.saes]
        for model in self.models:
            for name in model.saes or []:
                if name not in known:
                    raise ValueError(
                        f"models: {model.name}: saes names '{name}', which `saes` does not "
                        f"define (it defines {', '.join(known)})"
                    )
        return self

    @model_validator(mode="after")
    def _what_trains_together_is_trained_alike(self) -> "Config":
        first: dict[str, Sae] = {}
        for sae in self.saes:
            if sae.together is None:
                continue
            other = first.setdefault(sae.together, sae)
            for key in ("training", "gpus", "processes"):
                if getattr(sae, key) != getattr(other, key):
                    raise ValueError(
                        f"saes: {other.name} and {sae.name} train together as "
                        f"'{sae.together}' but differ in '{key}': make it the same"
                    )
        return self

    def model(self, name: str) -> LanguageModel:
        """The language model called ``name``."""
        return next(model for model in self.models if model.name == name)

    @property
    def untrained(self) -> dict[str, str]:
        """Of each model with trained weights, the one with random weights it is compared with.

        The same network, where it is among the models, else the first with random weights.
        """
        random = [model for model in self.models if model.random_weights]
        trained = [model for model in self.models if not model.random_weights]
        return {
            model.name: min(random, key=lambda other: other.source != model.source).name
            for model in trained
            if random
        }

    def untrained_place(self, model: str, layer: int, sae: str) -> tuple[str, int, str]:
        """(model, layer, SAE) of random weights that an SAE of trained weights is compared with.

        The nearest layer of its model's control; the same SAE, or the control's first without it.
        """
        control = self.model(self.untrained[model])
        nearest = min(control.layers, key=lambda other: (abs(other - layer), other))
        names = [other.name for other in self.saes_of(control)]
        return control.name, nearest, sae if sae in names else names[0]

    def sae(self, name: str) -> Sae:
        """The SAE called ``name``."""
        return next(sae for sae in self.saes if sae.name == name)

    def encoder(self, name: str) -> ImageEncoder:
        """The image encoder called ``name``."""
        encoders = self.imaging.encoders if self.imaging else []
        return next(encoder for encoder in encoders if encoder.name == name)

    def image_sae(self, name: str) -> Sae:
        """The SAE of the imaging study called ``name``."""
        grid = self.imaging.saes.grid() if self.imaging else []
        return next(sae for sae in grid if sae.name == name)

    def saes_of(self, model: LanguageModel) -> list[Sae]:
        """The SAEs trained on ``model``, in the order of ``saes``."""
        return [sae for sae in self.saes if model.saes is None or sae.name in model.saes]
