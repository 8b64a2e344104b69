"""The configuration: every key with its meaning, default and bounds, in one place.

``config/config.yaml`` and its siblings state only what differs from these defaults;
``config/README.md`` is generated from the descriptions below and held to them by a test.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from medsae.config.imaging_section import ImageEncoder, Imaging
from medsae.config.sae_section import Sae
from medsae.config.section import RUNTIME, FolderName, Section


NER_LABELS = (
    "administrative healthcare event",
    "bodily fluid or secretion",
    "cardiovascular disorder",
    "respiratory or pulmonary disorder",
    "neurological or mental disorder",
    "renal or kidney disorder",
    "gastrointestinal disorder",
    "musculoskeletal or orthopedic disorder",
    "anatomical structure",
    "radiological finding or shadow",
    "dermatological or skin lesion",
    "medication or therapeutic agent",
    "medical procedure or intervention",
    "laboratory measurement",
    "clinical finding or symptom",
    "endocrine disorder",
)


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
        "control for what lexical context alone explains.",
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


class NerAdaptation(Section):
    """Fine-tune the NER model on annotated notes that the study never sees."""

    notes: str = Field(description="Annotated notes (same columns as the corpus).")
    spans: str = Field(description="Their spans (JSONL: doc_id, start, end, entity_group).")
    n_head_steps: int = Field(
        1000,
        ge=0,
        description="Steps of the new layers alone, on the frozen encoder. None are taken where "
        "`ner.source` is a GLiNER already.",
    )
    n_steps: int = Field(600, ge=0, description="Steps of all layers, after those.")
    batch_size: int = Field(8, ge=1, description="Chunks of one step.")
    learning_rate: float = Field(5e-5, gt=0, description="Learning rate of all layers together.")
    head_learning_rate: float = Field(
        1e-3, gt=0, description="Learning rate of the new layers alone."
    )
    chunk_words: int = Field(96, ge=8, description="Words of one training chunk.")


class Ner(Section):
    """Entity recognition with GLiNER."""

    name: FolderName = Field("gliner-biomed-large", description="Name of the NER model.")
    source: str = Field(
        "Ihor/gliner-biomed-large-v1.0",
        description="A GLiNER hub id or folder; with `adapt`, also a plain encoder: a hub id, a "
        "folder or `package:NAME/FOLDER`.",
    )
    labels: list[str] = Field(
        list(NER_LABELS), min_length=1, description="Entity labels requested."
    )
    min_score: float = Field(0.8, ge=0, le=1, description="Spans scored lower are dropped.")
    chunk_words: int = Field(256, ge=16, le=384, description="Words GLiNER reads at once.")
    overlap_words: int = Field(64, ge=0, description="Words two neighbouring chunks share.")
    batch_size: int = Field(
        8, ge=1, description="Chunks of one forward pass.", json_schema_extra=RUNTIME
    )
    adapt: NerAdaptation | None = Field(
        None, description="Fine-tune before use. Default: use the model as it is."
    )
    gpus: int = Field(0, ge=0, description="GPUs of one NER job.")

    @model_validator(mode="after")
    def _chunks_advance(self) -> "Ner":
        if self.overlap_words >= self.chunk_words:
            raise ValueError(
                f"overlap_words {self.overlap_words} must be smaller than chunk_words "
                f"{self.chunk_words}: chunks would not advance"
            )
        return self


class Ablation(Section):
    """Cross-entropy change when a sense-linked latent is removed."""

    max_latents_per_sense: int = Field(
        5, ge=1, description="Sense-linked latents ablated per lemma and sense."
    )
    max_occurrences_per_sense: int = Field(
        20,
        ge=1,
        description="Occurrences of the sense at which each of its latents is removed, and as many "
        "of the term's other senses.",
    )
    tokens_after: int = Field(
        16, ge=1, description="Tokens after the term over which the loss is averaged."
    )


class Retrieval(Section):
    """Sense-aware re-ranking."""

    k_sweep: list[Annotated[int, Field(ge=1)]] = Field(
        [5, 10, 15, 20, 25, 30, 40, 50, 75, 100],
        min_length=1,
        description="How many of the first stage's results are re-ranked.",
    )
    n_anchor_sweep: list[Annotated[int, Field(ge=1)]] = Field(
        [2, 5, 10, 20],
        min_length=1,
        description="How many of the largest latents are dropped; chosen on development patients "
        "from those that leave latents to 95 % of the occurrences.",
    )


class Polysemy(Section):
    """How the senses of a term are represented."""

    lexicon: str = Field(
        "config/lexicon.csv",
        description="Terms and senses (CSV: term, sense, forms, domain_regexes, exclude_regexes).",
    )
    controls: str = Field("config/controls.csv", description="Terms with one meaning (CSV: term).")
    sense_labels: str = Field(
        "config/sense_labels.yaml", description="NER labels that speak for each sense."
    )
    sense_source: Literal["gold", "resolver"] = Field(
        "gold",
        description="Senses from the gold annotations where the corpus has them, or always from "
        "the resolver (NER label and cues in the text, abstaining when they disagree).",
    )
    pooling: Literal["last", "mean", "max"] = Field(
        "last", description="How the tokens of an occurrence become one code."
    )
    min_occurrences: int = Field(
        10, ge=2, description="Occurrences a sense needs before anything is said about it."
    )
    jaccard_k: list[Annotated[int, Field(ge=1)]] = Field(
        [10, 20, 50],
        min_length=1,
        description="Overlap of the k largest latents, besides all K; the mixed-effects models "
        "take 10 and all K.",
    )
    n_permutations: int = Field(
        10_000,
        ge=99,
        description="Permutations behind each p-value; subsets of patients behind p-values and "
        "intervals of the ablation.",
    )
    n_bootstrap: int = Field(2_000, ge=99, description="Resamples behind each bootstrap interval.")
    ablation: Ablation = Field(Ablation(), description="The ablation experiment.")
    retrieval: Retrieval = Field(Retrieval(), description="The retrieval experiment.")


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
