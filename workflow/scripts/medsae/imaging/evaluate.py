"""The stages of the evaluation, from files to tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from medsae.imaging.artifacts import (
    feature_rows,
    n_latents_of,
    open_embeddings,
    read_slices,
    rows_of_split,
)
from medsae.imaging.columns import HELD_OUT, SPLIT
from medsae.imaging.concepts import concepts_of
from medsae.imaging.fingerprint import KS, fingerprint_table
from medsae.imaging.language_retrieval import Picker, language_retrieval, templated_queries
from medsae.imaging.probes import DENSE, FEATURES, TRAIN, fit_probes, judge_probes, split_rows
from medsae.imaging.recovery import recovery
from medsae.imaging.targets import targets_of
from medsae.io import UserError


def probe_embeddings(
    slices_path: str | Path,
    embeddings: str | Path,
    encoder: Mapping[str, str | None],
    n_bootstrap: int,
    seed: int,
) -> pl.DataFrame:
    """``linear_probes.csv`` of an encoder's embeddings in the folder ``embeddings``.

    ``encoder``: its name as ``encoder``, and what it is a control of as ``control`` and
    ``control_of``.
    """
    slices = read_slices(slices_path)
    store = open_embeddings(embeddings, slices)
    rows = split_rows(slices, seed)
    matrices = {split: store.rows(index) for split, index in rows.items()}
    names = {**encoder, "representation": DENSE}
    targets = targets_of(concepts_of(slices, metadata=True))
    fitted = fit_probes(matrices[TRAIN], rows[TRAIN], slices, targets)
    return judge_probes(fitted, matrices, rows, slices, targets, names, n_bootstrap, seed)


def recover_performance(
    slices_path: str | Path,
    features: str | Path,
    sae_config: str | Path,
    probes: str | Path,
    encoder: Mapping[str, str | None],
    sae: str,
    n_bootstrap: int,
    seed: int,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """``recovery.csv`` and ``linear_probes.csv`` of an SAE's features; ``encoder`` as above."""
    slices = read_slices(slices_path)
    rows = split_rows(slices, seed)
    n_latents = n_latents_of(sae_config)
    matrices = {split: feature_rows(features, index, n_latents) for split, index in rows.items()}
    targets = targets_of(concepts_of(slices, metadata=True))
    fitted = fit_probes(matrices[TRAIN], rows[TRAIN], slices, targets)
    names = {**encoder, "representation": FEATURES}
    judged = judge_probes(fitted, matrices, rows, slices, targets, names, n_bootstrap, seed)
    dense = pl.read_csv(probes, infer_schema_length=None)
    names = {name: encoder[name] for name in ("control", "control_of")}
    names |= {"base_model": encoder["encoder"], "sae_config": sae}
    return recovery(matrices, rows, targets, dense, names, fitted), judged


def retrieve_fingerprints(
    slices_path: str | Path,
    features: str | Path,
    sae_config: str | Path,
    embeddings: str | Path,
    splits: Sequence[str],
    n_queries: int,
    seed: int,
) -> pl.DataFrame:
    """``fingerprint.csv``: among the slices of ``splits``, those like held-out ones.

    Queries are test slices; if ``splits`` has none, any.
    """
    slices = read_slices(slices_path)
    rows = _searched_rows(slices, slices_path, splits)
    held_out = (slices[rows][SPLIT] == HELD_OUT).to_numpy()
    return fingerprint_table(
        feature_rows(features, rows, n_latents_of(sae_config)),
        open_embeddings(embeddings, slices).rows(rows),
        slices[rows],
        KS,
        seed,
        n_queries,
        held_out if held_out.any() else None,
    )


def retrieve_by_language(
    slices_path: str | Path,
    features: str | Path,
    sae_config: str | Path,
    described: pl.DataFrame,
    picker: Picker,
    splits: Sequence[str],
    n_queries: int,
    seed: int,
) -> pl.DataFrame:
    """``language_retrieval.csv``: templated queries, answered by slices of ``splits``."""
    slices = read_slices(slices_path)
    rows = _searched_rows(slices, slices_path, splits)
    concepts = concepts_of(slices)
    n_latents = n_latents_of(sae_config)
    train = feature_rows(features, rows_of_split(slices, "train"), n_latents)
    fired = np.bincount(train.indices, minlength=n_latents)
    sums = np.bincount(train.indices, weights=train.data, minlength=n_latents)
    ids = described.filter(pl.col("description").is_not_null())["feature_idx"].to_list()
    return language_retrieval(
        templated_queries(concepts, rows, seed, n_queries),
        picker,
        ids,
        feature_rows(features, rows, n_latents),
        sums / np.maximum(fired, 1),
        concepts.of_rows(rows),
        slices[rows],
        seed,
    )


def _searched_rows(slices: pl.DataFrame, path: str | Path, splits: Sequence[str]) -> np.ndarray:
    rows = rows_of_split(slices, *splits)
    if not len(rows):
        raise UserError(f"{path}: no slice of {' and '.join(splits)} to search.")
    return rows
