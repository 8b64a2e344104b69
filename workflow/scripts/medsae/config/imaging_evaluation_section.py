"""The keys of the imaging study's evaluation and interpretation."""

from typing import Literal

from pydantic import Field, model_validator

from medsae.config.section import FolderName, Section


Split = Literal["train", "val", "test"]


class ImageEvaluation(Section):
    """How the features of image SAEs are judged."""

    scored_on: list[Split] = Field(
        ["val"], min_length=1, description="Splits on whose slices monosemanticity is measured."
    )
    fingerprints_on: list[Split] = Field(
        ["test"],
        min_length=1,
        description="Splits searched by fingerprint, for slices like those of the test split.",
    )
    language_on: list[Split] = Field(
        ["test"], min_length=1, description="Splits searched by words."
    )
    n_bootstrap: int = Field(500, ge=99, description="Resamples of patients behind each interval.")
    fingerprint_queries: int = Field(
        1000, ge=1, description="Test slices that are searched for by their features."
    )
    language_queries: int = Field(
        400, ge=100, description="At most so many templated queries in words."
    )


class AskedModel(Section):
    """A model that is shown slices: through transformers, or behind an endpoint."""

    source: str | None = Field(
        None,
        description="A hub id or folder of an image-text-to-text model, e.g. "
        "`google/medgemma-4b-it`.",
    )
    endpoint: str | None = Field(
        None,
        description="Or the base address of an OpenAI-compatible endpoint, e.g. "
        "`http://127.0.0.1:8000/v1`.",
    )
    model: str = Field("default", description="Name of the model at the endpoint.")
    allow_remote: bool = Field(
        False,
        description="Permit an endpoint on another machine. Slices and metadata leave this one.",
    )
    api_key_variable: str | None = Field(
        None, description="Environment variable that holds the endpoint's key."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "bfloat16", description="Precision a transformers model computes in."
    )
    max_new_tokens: int = Field(512, ge=16, description="Longest answer, in tokens.")

    @property
    def identity(self) -> tuple[str | None, ...]:
        """Which model it is, however it is asked."""
        return self.source, self.endpoint, self.model

    @model_validator(mode="after")
    def _one_back_end(self) -> "AskedModel":
        if (self.source is None) == (self.endpoint is None):
            raise ValueError("name either `source` or `endpoint`")
        return self


class Interpretation(Section):
    """How features are named, and how the names are tested."""

    n_features: int = Field(250, ge=1, description="Features named per SAE.")
    explainer: AskedModel | None = Field(
        None, description="Vision-language model that names features. Default: the labels and "
        "metadata of their slices.",
    )  # fmt: skip
    judge: AskedModel | None = Field(
        None,
        description="Vision-language model that tests the names on images alone. Default: probes "
        "on another encoder's embeddings.",
    )
    judged_on: list[Literal["val", "test"]] = Field(
        ["val"], min_length=1, description="Splits on whose slices names are tested."
    )
    judge_encoder: FolderName | None = Field(
        None,
        description="That encoder. Default: the first other one with trained weights, else any "
        "other.",
    )
    picker: AskedModel | None = Field(
        None, description="Model that picks features for a query. Default: words in common."
    )
    gpus: int = Field(0, ge=0, description="GPUs of one interpretation job.")

    @model_validator(mode="after")
    def _judge_is_independent(self) -> "Interpretation":
        if (
            self.judge is not None
            and self.explainer is not None
            and self.judge.identity == self.explainer.identity
        ):
            raise ValueError("the judge is the model that wrote the descriptions: name another one")
        return self
