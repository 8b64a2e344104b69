"""A study with planted truth: features that stand for known concepts, and features that do not."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from scipy.sparse import csr_array

from medsae.imaging.quality import QUALITY
from medsae.store import ShardWriter

ORGANS = ("heart", "kidney", "liver", "lung", "spleen", "stomach")
PLANES = ("axial", "coronal", "sagittal")
PER_PLANE = 8
N_LATENTS = 64
DENSE = 24

# latent → concept it fires on; the rest of the latents fire at random
PLANTED = {
    0: "organ:heart",
    1: "organ:kidney",
    2: "organ:liver",
    3: "organ:lung",
    4: "organ:spleen",
    5: "organ:stomach",
    6: "modality:ct",
    7: "plane:axial",
    8: "sex:f",
    9: "plane:coronal",
    10: "plane:sagittal",
    11: "modality:mr",
    12: "sex:m",
}
ALWAYS, NEVER = 40, 41


@dataclass(frozen=True)
class Planted:
    """Slices, features [n, 64] and embeddings [n, 24] of a planted study, and its files."""

    slices: pl.DataFrame
    features: csr_array
    dense: np.ndarray
    folder: Path
    concepts: dict[int, str]
    always: int = ALWAYS
    never: int = NEVER


def planted_slices(n_scans: int, rng: np.random.Generator) -> pl.DataFrame:
    rows = []
    for scan in range(n_scans):
        modality = "ct" if scan % 2 else "mr"
        split = ("train", "train", "val", "test")[(scan // 2) % 4]
        sex, institute, age = rng.choice(["f", "m"]), rng.choice(list("ABCD")), rng.uniform(20, 95)
        for plane in PLANES:
            for index in range(PER_PLANE):
                organs = sorted(
                    {str(rng.choice(ORGANS)) for _ in range(rng.choice([0, 1, 1, 1, 2]))}
                )
                rows.append(
                    {
                        "slice_key": f"{modality}/s{scan:03d}/{plane}/{index:04d}",
                        "scan": f"{modality}-s{scan:03d}",
                        "modality": modality,
                        "image_id": f"s{scan:03d}",
                        "plane": plane,
                        "slice_index": index,
                        "patient_id": f"p{scan:03d}",
                        "institute": str(institute),
                        "sex": str(sex),
                        "age": float(age),
                        "study_type": None,
                        "organs": organs,
                        "split": split,
                    }
                )
    return pl.DataFrame(rows, schema_overrides={"study_type": pl.String})


def concept_column(slices: pl.DataFrame, concept: str) -> np.ndarray:
    family, name = concept.split(":")
    if family == "organ":
        return slices["organs"].list.contains(name).to_numpy()
    return (slices[family] == name).to_numpy()


def planted_features(slices: pl.DataFrame, rng: np.random.Generator) -> csr_array:
    n = slices.height
    values = np.where(rng.random((n, N_LATENTS)) < 0.25, rng.gamma(2, size=(n, N_LATENTS)), 0)
    for latent, concept in PLANTED.items():
        shown = concept_column(slices, concept)
        values[:, latent] = np.where(shown, 3 + rng.random(n), 0)
    values[:, ALWAYS] = 1 + rng.random(n)
    values[:, NEVER] = 0
    return csr_array(values.astype(np.float32))


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    rng = np.random.default_rng(7)
    slices = planted_slices(96, rng)
    features = planted_features(slices, rng)
    shown = np.stack([concept_column(slices, concept) for concept in PLANTED.values()], 1)
    directions = np.linalg.qr(rng.normal(size=(DENSE, DENSE)))[0][: len(PLANTED)]
    dense = shown @ directions + 0.1 * rng.normal(size=(slices.height, DENSE))
    folder = tmp_path_factory.mktemp("planted")
    write_study(folder, slices, features, dense.astype(np.float32), rng)
    return Planted(slices, features, dense.astype(np.float32), folder, PLANTED)


def write_study(
    folder: Path,
    slices: pl.DataFrame,
    features: csr_array,
    dense: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Files as the rooms before this one write them."""
    slices.write_parquet(folder / "slices.parquet")
    lists = np.split(features.indices, features.indptr[1:-1])
    values = np.split(features.data, features.indptr[1:-1])
    pl.DataFrame(
        {
            "slice_key": slices["slice_key"],
            "split": slices["split"],
            "latent_ids": pl.Series(lists, dtype=pl.List(pl.Int32)),
            "values": pl.Series(values, dtype=pl.List(pl.Float32)),
        }
    ).write_parquet(folder / "features.parquet")
    sae = {
        "architecture": "matryoshka",
        "n_latents": features.shape[1],
        "k": 8,
        "options": {"prefixes": [16, 64]},
    }
    (folder / "cfg.json").write_text(json.dumps({"sae": sae}))
    quality = [("train", 0.1, 8.0), ("val", 0.2, 8.2), ("test", 0.3, 9.0)]
    pl.DataFrame(
        [(split, 100, fvu, fvu, l0, 0.1, 50) for split, fvu, l0 in quality],
        schema=QUALITY,
        orient="row",
    ).write_csv(folder / "sae_quality.csv")
    (folder / "slices").mkdir()
    (folder / "embeddings").mkdir()
    for scan in slices["scan"].unique(maintain_order=True):
        rows = np.flatnonzero((slices["scan"] == scan).to_numpy())
        with ShardWriter(
            folder / "embeddings" / f"{scan}.safetensors",
            len(rows),
            dense.shape[1],
            torch.float32,
            {},
        ) as writer:
            writer.write(0, torch.from_numpy(dense[rows]))
        pixels = rng.integers(0, 255, (len(rows), 24, 24), dtype=np.uint8)
        mask = np.zeros((len(rows), 24, 24), np.uint16)
        mask[:, 6:14, 6:14] = 1
        save_file(
            {"pixels": torch.from_numpy(pixels), "mask": torch.from_numpy(mask)},
            folder / "slices" / f"{scan}.safetensors",
            metadata={"organs": json.dumps({"1": "liver"})},
        )
