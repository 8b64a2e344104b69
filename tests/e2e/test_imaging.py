"""The imaging study alone, on synthetic scans with planted structures and one bad file."""

import json
import urllib.request
from pathlib import Path

import polars as pl
import pytest
from transformers import Dinov2Config, Dinov2Model

from medsae.store import ActivationStore
from tests.e2e.conftest import run_snakemake
from tests.imaging.asked_models import endpoint, write_tiny_gemma
from tests.imaging.scans.conftest import write_scan

pytestmark = pytest.mark.slow

SAE = "D_4_16_K_2_4"


def imaging_config(folder: Path) -> dict:
    """Fourteen scans of two modalities, a tiny encoder with its twin and patches, and pixels."""
    rows = ["image_id,modality,volume,masks,institute,sex,age"]
    for number in range(14):
        modality = "mr" if number % 3 == 0 else "ct"
        scan = write_scan(folder / "data", f"s{number}", modality)
        facts = f"{'ABCD'[number % 4]},{'mf'[number % 2]},{30 + 5 * number}"
        rows.append(f"{scan.image_id},{modality},{scan.volume},{scan.masks},{facts}")
    bad = Path(write_scan(folder / "data", "bad").volume)
    bad.write_bytes(bad.read_bytes()[:500])
    rows.append(f"bad,ct,{bad},,,,")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    Dinov2Model(
        Dinov2Config(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=8, image_size=32
        )
    ).save_pretrained(folder / "encoder")
    tiny = {"source": str(folder / "encoder"), "size": 32, "layer": 1}
    return {
        "imaging": {
            "name": "images",
            "sources": [{"path": str(folder / "manifest.csv")}],
            "batches": 2,
            "slicing": {
                "pixels": 32,
                "min_side_mm": 10,
                "planes": {"mr": ["axial", "coronal"]},
                "max_per_plane": 8,
                "n4": False,
            },
            "encoders": [
                {"name": "tiny", **tiny},
                {"name": "tiny-random", **tiny, "random_weights": True, "control_of": "tiny"},
                {"name": "tiny-patches", **tiny, "tokens": "patch"},
                {"name": "pixels", "source": "pixels"},
            ],
            "saes": {
                "dictionaries": [[4, 16]],
                "k": [[2, 4]],
                "epochs": 20,
                "training": {"batch_size": 64, "dead_after_tokens": 2000},
            },
        }
    }


def seen(address: str) -> list:
    """What an endpoint was asked."""
    with urllib.request.urlopen(address) as reply:
        return json.load(reply)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imaging")
    config = imaging_config(folder)
    (folder / "study.json").write_text(json.dumps(config))
    run_snakemake(folder, config, "imaging")
    return folder


def test_the_bad_scan_is_named_and_the_rest_is_there(study):
    results = study / "results/images"
    refused = pl.read_csv(results / "quarantine.csv")
    assert refused.height == 1 and "bad/volume.nii.gz" in refused["source"][0]
    summary = json.loads((results / "slices_summary.json").read_text())
    assert (summary["scans"], summary["quarantined"]) == (15, 1)
    assert summary["splits"]["test_institutes"] == ["A", "D"]


def test_the_report_holds_the_answers(study):
    config = json.loads((study / "study.json").read_text())
    run_snakemake(study, config, "imaging", "--report", "report.html")
    headline = (study / "results/images/headline.rst").read_text(encoding="utf-8")
    assert "slices of 14 scans" in headline
    assert "slices of 14 scans" in (study / "report.html").read_text(encoding="utf-8")


def test_embeddings_and_features_follow_the_index(study):
    results = study / "results/images"
    slices = pl.read_parquet(results / "slices.parquet")
    assert slices["slice_key"].is_unique().all()
    scans = slices["scan"].unique(maintain_order=True).to_list()
    for name, width, patches in (("tiny", 32, 0), ("tiny-patches", 32, 16), ("pixels", 1024, 0)):
        store = ActivationStore([results / f"{name}/embeddings/{s}.safetensors" for s in scans])
        assert (len(store), store.n_columns) == (slices.height, width)
        if patches:
            tokens = ActivationStore([results / f"{name}/patches/{s}.safetensors" for s in scans])
            assert len(tokens) == patches * slices.height
        features = pl.read_parquet(results / name / SAE / "features.parquet")
        assert features["slice_key"].equals(slices["slice_key"])
        assert features["values"].list.len().sum() > 0


def test_the_study_ends_in_words_that_mark_controls_and_splits(study):
    results = study / "results/images"
    text = (results / "summary.md").read_text()
    assert "tiny-random (random weights)" in text and "pixels (no network)" in text
    ranking = pl.read_csv(results / "config_ranking.csv")
    assert ranking.height == 4
    marks = dict(ranking.select("base_model", "control_of").iter_rows())
    assert marks["tiny-random"] == "tiny" and marks["tiny"] is None
    for split in ("train", "val", "test"):
        assert ranking[f"{split}_fvu"].is_not_null().all()
    for name in ("quality", "ranking", "probes", "recovery"):
        assert (results / f"figures/{name}.svg").stat().st_size > 2000
    for encoder, sae in ranking.select("base_model", "sae_config").iter_rows():
        assert (results / encoder / sae / "figures/training.svg").stat().st_size > 2000
    chosen = json.loads((results / "chosen_configurations.json").read_text())
    for encoder, sae in chosen.items():
        assert (results / encoder / sae / "figures/contact_sheet.svg").stat().st_size > 2000


def test_the_published_table_says_what_each_slice_shows(study):
    results = study / "results/images"
    slices = pl.read_parquet(results / "slices.parquet")
    table = pl.read_csv(results / "metadata.csv")
    assert table["slice_key"].equals(slices["slice_key"])
    assert (table["liver"] == slices["organs"].list.contains("liver")).all()


def test_a_second_run_does_nothing_and_another_window_does_it_again(study):
    config = json.loads((study / "study.json").read_text())
    done = run_snakemake(study, config, "--dry-run", "results/images/slices.parquet")
    assert "Nothing to be done" in done.stdout
    config["imaging"]["slicing"]["max_per_plane"] = 7
    done = run_snakemake(study, config, "--dry-run", "results/images/slices.parquet")
    assert "slice_scans" in done.stdout


def test_bad_input_stops_before_the_first_job(tmp_path):
    config = imaging_config(tmp_path)
    config["imaging"]["encoders"][0]["layer"] = 9
    done = run_snakemake(tmp_path, config, "results/images/slices.parquet", check=False)
    assert done.returncode
    assert "encoders: tiny: " in done.stdout and "2 blocks, 0 to 1" in done.stdout
    assert not (tmp_path / "results/images/slices").exists()


@pytest.mark.parametrize(
    ("explainer", "said"),
    [
        ({"endpoint": "http://127.0.0.1:9/v1"}, "nothing answers at the endpoint"),
        ({"endpoint": "https://models.example.org/v1"}, "set interpretation.allow_remote to true"),
        ({"source": "./encoder"}, "answers no questions about images"),
    ],
)
def test_a_model_that_cannot_be_asked_stops_before_the_first_job(tmp_path, explainer, said):
    config = imaging_config(tmp_path)
    if explainer.get("source"):
        explainer = {"source": str(tmp_path / "encoder")}
    config["imaging"]["interpretation"] = {"explainer": explainer}
    done = run_snakemake(tmp_path, config, "imaging", check=False)
    assert done.returncode
    assert "imaging: interpretation: explainer: " in done.stdout and said in done.stdout
    assert not (tmp_path / "results/images/slices").exists()


def test_asked_models_name_and_judge_through_the_workflow(tmp_path):
    """A stub endpoint explains and picks, a tiny Gemma judges; a rerun asks nothing twice."""
    config = imaging_config(tmp_path)
    imaging = config["imaging"]
    imaging["encoders"] = [each for each in imaging["encoders"] if each["name"] == "tiny"]
    judge = {"source": str(write_tiny_gemma(tmp_path / "gemma")), "dtype": "float32"}
    with endpoint() as address:
        asked = {"endpoint": f"{address}/v1"}
        imaging["interpretation"] = {
            "n_features": 8,
            "explainer": asked,
            "judge": judge | {"max_new_tokens": 16},
            "picker": asked | {"model": "picker"},
        }
        run_snakemake(tmp_path, config, "imaging")
        place = tmp_path / f"results/images/tiny/{SAE}"
        n_asked = len(seen(address))
        described = pl.read_csv(place / "interpretation/feature_descriptions.csv")
        assert described["explainer"].str.starts_with("endpoint:").all() and n_asked > 0
        metrics = json.loads((place / "interpretation/evaluation_metrics.json").read_text())
        # random weights rank nothing: every answer that cannot be read is a failure
        assert metrics["n_rankings_not_read"] == metrics["n_tested"]
        picked = pl.read_csv(place / "language_retrieval.csv").filter(method="picked")
        assert picked["parsed"].all()
        run_snakemake(tmp_path, config, "imaging", "--forcerun", "interpret_features")
        assert len(seen(address)) == n_asked
    text = (tmp_path / "results/images/summary.md").read_text()
    assert "No vision-language model was asked" not in text
