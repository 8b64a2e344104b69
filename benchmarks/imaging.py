"""The imaging study's heavy steps against straightforward implementations of the same.

Slicing and embedding: one scan (a generated CT with 60 structures in one label file) and one
ViT-S of random weights. Monosemanticity: generated features of many slices, streamed from
Parquet; the straightforward side loops over features, on a dense column of each, with the
null cached. Each side runs in a process of its own, which gives its peak memory; where the
straightforward side would take too long it does a stated share and its time is scaled.
Storage: bytes of the sparse features against those of the same features dense.

    python benchmarks/imaging.py [--slices 100000] [--latents 8192] [--only slicing ...]
"""

import argparse
import itertools
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
import polars as pl

ORGANS, ACTIVE, PER_SCAN = 60, 40, 200
PIXELS = 256
SHAPE = (160, 160, 120)
EMBEDDED = 16
LAYER, SIZE = 8, 224
PLAIN_SHARE = 0.1
"""Share of the features that the straightforward side scores."""

REPEATS, LONG_S = 3, 10.0
"""Each side runs so often; the fastest counts, which other work on the machine slows least."""


def make_scan(folder: Path) -> None:
    """A CT of 160 × 160 × 120 voxels at 2 mm, and a label file of 60 boxes."""
    import nibabel

    rng = np.random.default_rng(0)
    volume = rng.normal(0, 300, SHAPE).astype(np.int16)
    labels = np.zeros(SHAPE, np.uint8)
    for label in range(1, ORGANS + 1):
        low = rng.integers(20, [110, 110, 80])
        labels[tuple(slice(a, a + 18) for a in low)] = label
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    for name, data in (("ct", volume), ("labels", labels)):
        nibabel.save(nibabel.Nifti1Image(data, affine), folder / f"{name}.nii.gz")
    table = pl.DataFrame({"value": range(1, ORGANS + 1), "name": [f"o{i}" for i in range(ORGANS)]})
    table.write_csv(folder / "labels.csv")


def slicing_plain(folder: Path) -> dict[str, float]:
    """Every slice of every axis: window, Lanczos, and each structure's mask looked at."""
    import nibabel
    from PIL import Image

    volume = np.asarray(nibabel.load(folder / "ct.nii.gz").dataobj).astype(np.float32)
    labels = np.asarray(nibabel.load(folder / "labels.nii.gz").dataobj)
    masks = [labels == label for label in range(1, ORGANS + 1)]
    low, high = 50 - 500, 50 + 500
    n = 0
    for axis in range(3):
        for index in range(volume.shape[axis]):
            cut = np.moveaxis(volume, axis, 0)[index]
            grey = (np.clip((cut - low) / (high - low), 0, 1) * 255).astype(np.uint8)
            side = min(grey.shape)
            top, left = ((edge - side) // 2 for edge in grey.shape)
            square = grey[top : top + side, left : left + side]
            Image.fromarray(square).resize((PIXELS, PIXELS), Image.Resampling.LANCZOS)
            flags = [np.moveaxis(mask, axis, 0)[index].any() for mask in masks]
            n += len(flags) > 0
    return {"share": 1.0, "n": n}


def slicing_library(folder: Path) -> dict[str, float]:
    from medsae.imaging.slicing import SliceSettings, slice_scan
    from medsae.imaging.sources import Scan

    settings = SliceSettings(
        pixels=PIXELS, planes={"ct": ["axial", "coronal", "sagittal"]}, min_side_mm=64.0,
        max_anisotropy=3.0, step_mm=None, windows={"other": (50, 1000)}, n4=False, trim=False,
        max_per_plane=None, overlays=False,
    )  # fmt: skip
    scan = Scan("ct", "bench", *(str(folder / name) for name in
                                 ("ct.nii.gz", "labels.nii.gz", "labels.csv")))  # fmt: skip
    return {"share": 1.0, "n": slice_scan(scan, settings).rows.height}


def make_encoder(folder: Path) -> None:
    """A ViT-S/14 of random weights, as transformers saves it."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=384, num_attention_heads=6, patch_size=14, image_size=518)
    Dinov2Model(config).save_pretrained(folder)


def embedding_plain(folder: Path) -> dict[str, float]:
    """One slice at a time through the whole model; the hidden state of the layer, pooled."""
    import torch
    from PIL import Image
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).eval()
    pixels = np.random.default_rng(0).integers(0, 255, (EMBEDDED, PIXELS, PIXELS), dtype=np.uint8)
    for image in pixels:
        rgb = Image.fromarray(image).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        x = torch.from_numpy(np.asarray(rgb, np.float32).transpose(2, 0, 1))[None] / 255
        with torch.no_grad():
            states = model((x - 0.45) / 0.22, output_hidden_states=True).hidden_states
        states[LAYER + 1][:, 1:].mean(1)
    return {"share": 1.0, "n": EMBEDDED}


def embedding_library(folder: Path) -> dict[str, float]:
    import torch

    from medsae.imaging.encoders import load_encoder

    encoder = load_encoder(
        str(folder), layer=LAYER, pooling="mean", size=SIZE, dtype="float32",
        device=torch.device("cpu"),
    )  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 255, (EMBEDDED, PIXELS, PIXELS), dtype=np.uint8)
    for start in range(0, EMBEDDED, 16):
        encoder(torch.from_numpy(pixels[start : start + 16]))
    return {"share": 1.0, "n": EMBEDDED}


def make_features(folder: Path, n_slices: int, n_latents: int) -> None:
    """slices.parquet, features.parquet and cfg.json; features with Zipf-like frequencies."""
    rng = np.random.default_rng(0)
    n_scans = -(-n_slices // PER_SCAN)
    row = np.arange(n_slices)
    organs = rng.random((n_slices, ORGANS)) < rng.random(ORGANS) * 0.3
    pl.DataFrame(
        {
            "slice_key": [f"ct/{r // PER_SCAN}/axial/{r % PER_SCAN}" for r in row],
            "scan": [f"ct-{r // PER_SCAN:05d}" for r in row],
            "modality": np.where((row // PER_SCAN) % 2, "ct", "mr"),
            "plane": np.array(["axial", "coronal", "sagittal"])[row % 3],
            "patient_id": [f"p{r // PER_SCAN}" for r in row],
            "sex": np.array(["f", "m"])[rng.integers(0, 2, n_scans)][row // PER_SCAN],
            "organs": [[f"organ_{o}" for o in np.flatnonzero(line)] for line in organs],
            "split": ["val"] * n_slices,
        }
    ).write_parquet(folder / "slices.parquet")
    share = np.arange(1, n_latents + 1) ** -0.4
    mass = np.cumsum(rng.permutation(share)) / share.sum()
    # one draw from each of 40 equal parts of the mass: ascending, and only neighbours repeat
    draws = (np.arange(ACTIVE) + rng.random((n_slices, ACTIVE))) / ACTIVE
    ids = np.searchsorted(mass, draws).clip(max=n_latents - 1).astype(np.int32)
    repeated = np.diff(ids, axis=1, prepend=-1) == 0
    values = rng.gamma(2, size=ids.shape).astype(np.float32)
    lists = pl.DataFrame({"latent_ids": ids, "values": values, "repeated": repeated})
    entries = lists.with_columns(pl.all().arr.to_list()).with_row_index("row")
    kept = entries.explode("latent_ids", "values", "repeated").filter(~pl.col("repeated"))
    table = kept.group_by("row", maintain_order=True).agg("latent_ids", "values")
    table.drop("row").write_parquet(folder / "features.parquet")
    sae = {"n_latents": n_latents, "k": ACTIVE, "options": {"prefixes": [n_latents]}}
    (folder / "cfg.json").write_text(json.dumps({"sae": sae}))


def read_columns(folder: Path) -> tuple[Any, list[str], list[set[str]]]:
    """What the straightforward side works on: a column store, scans and organ sets."""
    from medsae.imaging.artifacts import feature_rows, n_latents_of

    slices = pl.read_parquet(folder / "slices.parquet")
    rows = np.arange(slices.height)
    matrix = feature_rows(folder / "features.parquet", rows, n_latents_of(folder / "cfg.json"))
    return matrix.tocsc(), slices["scan"].to_list(), [set(o) for o in slices["organs"]]


def monosemanticity_plain(data: tuple[Any, list[str], list[set[str]]]) -> dict[str, float]:
    """Feature by feature, pair by pair."""
    columns, scans, organs = data
    rng = np.random.default_rng(0)
    n_features = max(1, int(PLAIN_SHARE * columns.shape[1]))
    null = {}
    for n in (10, 50):
        draws = [rng.choice(len(scans), n, replace=False) for _ in range(100)]
        null[n] = float(np.mean([_jaccard([organs[i] for i in draw]) for draw in draws]))
    step = columns.shape[1] // n_features
    done = 0
    for feature in range(0, columns.shape[1], step):
        dense = columns[:, [feature]].toarray().ravel()
        if (dense > 0).all():
            continue
        seen: set[str] = set()
        top: list[set[str]] = []
        for row in np.argsort(-dense):
            if dense[row] <= 0 or len(top) == 50:
                break
            if scans[row] not in seen:
                seen.add(scans[row])
                top.append(organs[row])
        for n in (10, 50):
            if len(top) > 1:
                max(_jaccard(top[:n]) - null[n], 0) * _specificity(top[:n])
        done += 1
    return {"share": done / columns.shape[1], "n": done}


def _jaccard(sets: list[set[str]]) -> float:
    pairs = itertools.combinations(sets, 2)
    return float(np.mean([len(a & b) / len(a | b) if a | b else 1.0 for a, b in pairs]))


def _specificity(sets: list[set[str]]) -> float:
    counts: dict[str, int] = {}
    for organ in itertools.chain.from_iterable(sets):
        counts[organ] = counts.get(organ, 0) + 1
    p = np.array(list(counts.values())) / max(sum(counts.values()), 1)
    return float(1 + (p * np.log(p)).sum() / np.log(ORGANS))


def monosemanticity_library(folder: Path) -> dict[str, float]:
    """The whole table: published scores, lifts of every concept, nulls, q-values."""
    from medsae.imaging.artifacts import read_slices
    from medsae.imaging.score_features import score_features

    slices = read_slices(folder / "slices.parquet")
    table = score_features(
        folder / "features.parquet", slices, folder / "cfg.json", ["val"], seed=0
    )
    return {"share": 1.0, "n": table.height}


def same(folder: Path) -> Path:
    """Nothing to prepare."""
    return folder


Side = tuple[Callable[[Path], Any], Callable[[Any], dict[str, float]]]
TASKS: dict[str, tuple[str, Side, Side]] = {
    "slicing": ("slices/s", (same, slicing_plain), (same, slicing_library)),
    "embedding": ("embeddings/s", (same, embedding_plain), (same, embedding_library)),
    "monosemanticity": (
        "features/s",
        (read_columns, monosemanticity_plain),
        (same, monosemanticity_library),
    ),
}


def measure(side: Side, folder: Path) -> dict[str, float]:
    """Run one side in a fresh process: seconds (of all the work), rate, peak_mib."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_run, (side, folder))


def _run(side: Side, folder: Path) -> dict[str, float]:
    read, work = side
    data = read(folder)
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < LONG_S:
        begin = time.perf_counter()
        done = work(data)
        times.append(time.perf_counter() - begin)
    measured = min(times)
    peak = common.peak_mib()
    return {
        "seconds": measured / done["share"],
        "measured_seconds": measured,
        "share": done["share"],
        "rate": done["n"] / measured,
        "peak_mib": peak,
    }


def storage(folder: Path) -> dict[str, float]:
    """Bytes of the sparse features and of the same matrix as dense float32."""
    import pyarrow.parquet as pq

    sae = json.loads((folder / "cfg.json").read_text())["sae"]
    rows = pq.ParquetFile(folder / "features.parquet").metadata.num_rows
    sparse = (folder / "features.parquet").stat().st_size
    dense = rows * sae["n_latents"] * 4
    return {"sparse_mib": sparse / 2**20, "dense_mib": dense / 2**20, "ratio": dense / sparse}


def main() -> None:
    """Make the inputs, run the tasks, print and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=100_000)
    parser.add_argument("--latents", type=int, default=8192)
    parser.add_argument(
        "--only", nargs="+", choices=[*TASKS, "storage"], default=[*TASKS, "storage"]
    )
    parser.add_argument("--output", default=str(common.RESULTS / "imaging.json"))
    arguments = parser.parse_args()
    output = Path(arguments.output)
    results = json.loads(output.read_text()) if output.is_file() else {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if "slicing" in arguments.only:
            make_scan(folder)
        if "embedding" in arguments.only:
            make_encoder(folder)
        if {"monosemanticity", "storage"} & set(arguments.only):
            print(
                f"generating {arguments.slices} slices x {arguments.latents} features", flush=True
            )
            make_features(folder, arguments.slices, arguments.latents)
        print(f"{'task':17}{'straightforward':>22}{'library':>22}{'ratio':>9}{'MiB':>16}")
        for name in arguments.only:
            if name == "storage":
                results[name] = storage(folder)
                print(_storage_line(results[name]), flush=True)
            else:
                unit, plain, library = TASKS[name]
                ours, theirs = measure(library, folder), measure(plain, folder)
                entry = {"unit": unit, "straightforward": theirs, "library": ours}
                entry["ratio"] = theirs["seconds"] / ours["seconds"]
                if name == "monosemanticity":
                    entry |= {"slices": arguments.slices, "features": arguments.latents}
                results[name] = entry
                print(_line(name, unit, theirs, ours), flush=True)
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(results, indent=2) + "\n")


def _line(name: str, unit: str, theirs: dict[str, float], ours: dict[str, float]) -> str:
    scaled = "*" if theirs["share"] < 1 else " "
    ratio = theirs["seconds"] / ours["seconds"]
    memory = f"{theirs['peak_mib']:.0f} / {ours['peak_mib']:.0f}"
    return (
        f"{name:17}{theirs['rate']:9.1f} {unit:12}{ours['rate']:9.1f} {unit:12}"
        f"{ratio:8.1f}x{scaled}{memory:>15}"
    )


def _storage_line(sizes: dict[str, float]) -> str:
    return (
        f"{'storage':17}{sizes['dense_mib']:9.1f} MiB dense   "
        f"{sizes['sparse_mib']:9.1f} MiB sparse  {sizes['ratio']:8.1f}x"
    )


if __name__ == "__main__":
    main()
