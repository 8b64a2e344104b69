"""Configuration of entity recognition."""

from pydantic import Field, model_validator

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
