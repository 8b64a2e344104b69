"""Configuration of the polysemy study: how the senses of a term are represented."""

from typing import Annotated, Literal

from pydantic import Field

from medsae.config.section import Section


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
        description="Overlap of the k largest latents, besides the 10 largest and all K.",
    )
    n_permutations: int = Field(
        10_000,
        ge=99,
        description="Permutations behind p-values of overlap, latents and probes; subsets and "
        "resamples of patients behind p-values and intervals of the ablation.",
    )
    n_bootstrap: int = Field(2_000, ge=99, description="Resamples behind each bootstrap interval.")
    ablation: Ablation = Field(Ablation(), description="The ablation experiment.")
    retrieval: Retrieval = Field(Retrieval(), description="The retrieval experiment.")
