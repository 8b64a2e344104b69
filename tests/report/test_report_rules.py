"""The rules of the report, run by Snakemake on planted tables, and the report they give."""

import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from medsae.config import Layout, parse_config

ROOT = Path(__file__).parents[2]
PLACES = [("trained-lm", 4), ("trained-lm", 8), ("random-lm", 8)]
CONFIG = {
    "corpus": {
        "name": "planted",
        "notes": "resources/demo/notes.csv",
        "gold_spans": "resources/demo/gold_spans.jsonl",
    },
    "models": [
        {"name": "trained-lm", "source": "folder", "layers": [4, 8]},
        {"name": "random-lm", "source": "folder", "layers": [8], "random_weights": True},
    ],
    "saes": [{"name": "topk", "n_latents": 64, "k": 16}],
}
PER_SAE = {
    "metrics/jaccard_at_k.csv": "jaccard",
    "metrics/entropy_per_sense.csv": "entropy",
    "metrics/sense_linked_latents.csv": "linked",
    "metrics/sense_probes.csv": "probes",
    "metrics/retrieval/exp_a_k_sweep_summary.csv": "sweep",
    "metrics/retrieval/baselines.csv": "baselines",
    "metrics/ablation_summary.csv": "ablation",
    "metrics/faithfulness.csv": "faithfulness",
    "metrics/pooling_sensitivity.csv": "poolings",
    "metrics/training_gain.csv": "gains",
    "sae/train_metrics.parquet": "training",
}
PER_CORPUS = {
    "mixed_effects/fdr_correction.csv": "contrasts",
    "mixed_effects/fits.csv": "fits",
    "mixed_effects/diagnostics.csv": "diagnostics",
    "occurrences.parquet": "occurrences",
    "sense_agreement.csv": "agreement",
    "ner/ner_evaluation.csv": "ner",
}
# Of a rule that draws what it measures on activations, which are not planted.
MEASURED = {
    "metrics/explained_variance_by_position.csv": "",
    "figures/positions.svg": '<svg xmlns="http://www.w3.org/2000/svg"/>',
}


def write(table: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table.write_parquet(path)
    else:
        table.write_csv(path)


@pytest.fixture
def planted_run(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A working directory that holds every table the report reads."""
    layout = Layout(parse_config(CONFIG))
    (tmp_path / "config").symlink_to(ROOT / "config")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    for model, layer in PLACES:
        own = {"model": model, "layer": layer, "sae": "topk"}

        def path(name: str, own: dict = own) -> Path:
            return tmp_path / layout.sae(name).format(**own)

        for name, fixture in PER_SAE.items():
            table = request.getfixturevalue(fixture)
            if fixture == "faithfulness":
                table = table.head(1)
            if fixture == "jaccard" and model == "random-lm":
                names = ("delta", "delta_low", "delta_high")
                table = table.with_columns(pl.col(*names) * 0.1, pl.lit(0.5).alias("qvalue"))
            write(
                table.with_columns(**{key: pl.lit(value) for key, value in own.items()}), path(name)
            )
        firing = pl.DataFrame({"latent_id": range(4), "firing_count": [0, 5, 7, 9]})
        write(firing, path("calibrated/calibration.parquet"))
        for name in ("topk_latents.csv", "viewer/viewer_pack.json", *MEASURED):
            path(name).parent.mkdir(parents=True, exist_ok=True)
            path(name).write_text(MEASURED.get(name, ""))
        spans = tmp_path / layout.model("ner_spans_with_tokens.jsonl").format(**own)
        spans.touch()
        meta = {"step": 100, "val_nmse": 0.2, "val_fvu": 0.25}
        path("sae/best_meta.json").write_text(json.dumps(meta))
    for name, fixture in PER_CORPUS.items():
        write(request.getfixturevalue(fixture), tmp_path / layout.corpus(name))
    notes = tmp_path / layout.corpus("notes/summary.json")
    notes.parent.mkdir(parents=True)
    notes.write_text(json.dumps(request.getfixturevalue("notes")))
    return tmp_path


def snakemake(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--configfile", str(folder / "config.yaml")]
    command += ["--cores", "2", "--workflow-profile", "none", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules_of_the_report() -> str:
    files = (*(ROOT / "rules").glob("*figures*.smk"), ROOT / "rules/report.smk")
    return "".join(file.read_text() for file in files)


@pytest.mark.slow
def test_the_report_gathers_every_figure_with_its_caption(planted_run: Path) -> None:
    text = rules_of_the_report()
    allowed = set(re.findall(r"^ *rule (\w+):", text, re.MULTILINE)) - {"measure_positions"}
    target = "results/planted/figures/benchmarks.svg"
    only = ["--allowed-rules", *allowed, "--"]
    snakemake(planted_run, *only, target)
    assert "Nothing to be done" in snakemake(planted_run, *only, target)
    snakemake(planted_run, "--report", "report.html", *only, target)
    report = (planted_run / "report.html").read_text()
    # Those of images belong to the imaging study, which is not planted here.
    texts = {path.stem for path in (ROOT / "report").glob("*.rst")} - {"workflow", "summary"}
    captions = {name for name in texts if not name.startswith("image_")}
    for name in captions:
        assert f"figures/{name}.svg" in report, name
    assert "summary.html" in report
    summary = (planted_run / "results/planted/summary.md").read_text()
    assert "discharge" in summary and "What cannot be concluded" in summary
    assert "5 of 6 ambiguous terms separated" in report


INTRODUCTIONS = ("workflow", "image_workflow")


def test_every_caption_belongs_to_a_rule_and_every_rule_has_its_caption() -> None:
    text = rules_of_the_report()
    used = re.findall(r'caption="\.\./report/(\w+)\.rst"', text)
    assert len(used) == len(set(used)) == text.count("report(\n")
    assert {path.stem for path in (ROOT / "report").glob("*.rst")} == {*used, *INTRODUCTIONS}
