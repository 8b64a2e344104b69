"""The interpretation of one SAE, from files and settings to files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medsae.imaging.artifacts import (
    Embeddings,
    SliceImages,
    n_latents_of,
    open_embeddings,
    read_slices,
    rows_of_split,
    sample_rows,
)
from medsae.imaging.concepts import Concepts, concepts_of
from medsae.imaging.interpret.ask import CachedModel, EndpointModel, Model, TransformersModel
from medsae.imaging.interpret.explain import Explainer, LabelExplainer, ModelExplainer
from medsae.imaging.interpret.interpret import NAMED_ON, Interpretation, interpret
from medsae.imaging.interpret.judge import EmbeddingJudge, Judge, ModelJudge
from medsae.imaging.interpret.select import select_features
from medsae.imaging.language_retrieval import LabelPicker, ModelPicker, Picker
from medsae.imaging.probes import MAX_SLICES
from medsae.imaging.top_slices import random_top_slices
from medsae.statistics import codes_of, stream

N_DRAWS = 1000

Settings = Mapping[str, Any]
"""A model to ask, with the keys of ``medsae.config``'s AskedModel."""


def model_of(settings: Settings, cache: str | Path) -> CachedModel:
    """The model that ``settings`` name, its answers kept in ``cache``."""
    model: Model
    if settings["endpoint"] is not None:
        model = EndpointModel(
            settings["endpoint"],
            settings["model"],
            settings["max_new_tokens"],
            settings["allow_remote"],
            settings["api_key_variable"],
        )
    else:
        model = TransformersModel(settings["source"], settings["max_new_tokens"], settings["dtype"])
    return CachedModel(model, cache)


def interpret_sae(
    files: Mapping[str, str],
    settings: Mapping[str, Any],
    judge_encoder: str,
    cache: str | Path,
    seed: int,
) -> tuple[Interpretation, pl.DataFrame, dict[str, dict[str, str]]]:
    """The interpretation, the selected features, and every answer of a model that it used.

    ``files``: slices, features, sae_config, scores, recovery; the folders embeddings, images
    and judge_embeddings. ``settings``: the configuration's interpretation section.
    """
    slices = read_slices(files["slices"])
    concepts = concepts_of(slices)
    images = SliceImages(files["images"], slices)
    selected = select_features(
        pl.read_csv(files["scores"], infer_schema_length=None),
        pl.read_csv(files["recovery"], infer_schema_length=None),
        settings["n_features"],
    )
    asked: list[CachedModel] = []

    def asking(role: str) -> CachedModel:
        asked.append(model_of(settings[role], Path(cache) / f"{role}.json"))
        return asked[-1]

    explainer: Explainer
    if settings["explainer"] is None:
        explainer = LabelExplainer(concepts, prevalence_of(concepts, slices, seed))
    else:
        explainer = ModelExplainer(asking("explainer"), images, slices)
    judge: Judge
    if settings["judge"] is None:
        embeddings = open_embeddings(files["judge_embeddings"], slices)
        judge = _embedding_judge(judge_encoder, embeddings, concepts, slices, seed)
    else:
        judge = ModelJudge(asking("judge"), images)
    result = interpret(
        selected,
        files["features"],
        open_embeddings(files["embeddings"], slices),
        slices,
        n_latents_of(files["sae_config"]),
        explainer,
        judge,
        settings["judged_on"],
        seed,
    )
    return result, selected, {key: answer for model in asked for key, answer in model.used.items()}


def picker_of(
    settings: Mapping[str, Any], descriptions: pl.DataFrame, slices: str | Path, cache: str | Path
) -> Picker:
    """The picker that the interpretation section names."""
    if settings["picker"] is None:
        return LabelPicker(descriptions, concepts_of(read_slices(slices)).names)
    return ModelPicker(model_of(settings["picker"], Path(cache) / "picker.json"), descriptions)


def prevalence_of(concepts: Concepts, slices: pl.DataFrame, seed: int) -> np.ndarray:
    """Share [K] of the training slices with each concept, as retrieval sees them."""
    pool = np.zeros(slices.height, dtype=bool)
    pool[rows_of_split(slices, NAMED_ON)] = True
    rng = stream(seed, "prevalence", NAMED_ON)
    drawn = random_top_slices(codes_of(slices["scan"]), pool, N_DRAWS, 10, rng)
    known = concepts.known[drawn].sum((0, 1))
    return concepts.present[drawn].sum((0, 1)) / np.maximum(known, 1)


def _embedding_judge(
    name: str, embeddings: Embeddings, concepts: Concepts, slices: pl.DataFrame, seed: int
) -> EmbeddingJudge:
    train = sample_rows(slices, rows_of_split(slices, NAMED_ON), MAX_SLICES, seed)
    return EmbeddingJudge(name, embeddings, concepts, train)
