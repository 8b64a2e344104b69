"""The scripts of the evaluation, from embeddings to the summary, on the planted study."""

import json
import logging
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from matplotlib.text import Text

from medsae.config.imaging_evaluation_section import Interpretation
from medsae.config.imaging_section import ImageSaes
from medsae.imaging.result_columns import CONFIG_RANKING, FEATURE_SCORES, RECOVERY
from medsae.report.imaging.data import RANKING_NUMBERS, read_table
from medsae.report.imaging.quality import draw_quality

CONTROLS = {
    "planted": {"control": None, "control_of": None},
    "control": {"control": "random weights", "control_of": "planted"},
}
ENCODERS = tuple(CONTROLS)
SAE = "D_16_64_K_4_8"
PUBLISHED = {
    "feature_descriptions.csv": "descriptions",
    "selected_features.csv": "selected",
    "feature_sample_metadata.csv": "samples",
    "feature_activation_stats.csv": "statistics",
    "concept_cache.json": "cache",
    "evaluation_metrics.json": "metrics",
}


SUMMARY = {"markdown": "summary.md", "page": "summary.html", "headline": "headline.rst"}


class Outputs(SimpleNamespace):
    """Named files that can be gone through."""

    def __iter__(self):
        return iter(vars(self).values())


@pytest.fixture(scope="module")
def run(pytestconfig):
    level, handlers = logging.root.level, logging.root.handlers[:]

    def script(rule, folder, inputs, outputs, wildcards=None, config=None, **params):
        output = {key: str(folder / value) for key, value in outputs.items()}
        snakemake = SimpleNamespace(
            input=SimpleNamespace(**inputs),
            output=Outputs(**output),
            params=SimpleNamespace(**params),
            wildcards=SimpleNamespace(**(wildcards or {})),
            config=config,
            log=[str(folder / "logs" / f"{rule}.log")],
            threads=1,
            rule=rule,
        )
        path = pytestconfig.rootpath / "workflow" / "scripts" / f"{rule}.py"
        runpy.run_path(str(path), init_globals={"snakemake": snakemake})
        return output

    yield script
    for handler in logging.root.handlers:
        handler.close()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(scope="module")
def study(run, planted, tmp_path_factory):
    """Paths of everything that the rules write, by encoder and in all."""
    folder = tmp_path_factory.mktemp("study")
    files = {
        "slices": str(planted.folder / "slices.parquet"),
        "features": str(planted.folder / "features.parquet"),
        "config": str(planted.folder / "cfg.json"),
    }
    images, embeddings = str(planted.folder / "slices"), str(planted.folder / "embeddings")
    settings = Interpretation(n_features=20).model_dump(exclude={"gpus"})
    made = {}
    for encoder in ENCODERS:
        place = folder / encoder
        which = {"encoder": encoder, "sae": SAE}
        own = run("probe_embeddings", place, files, {"probes": "linear_probes.csv"}, which,
                  embeddings=embeddings, control=CONTROLS[encoder], n_bootstrap=99,
                  seed=0)  # fmt: skip
        own |= run("score_image_features", place, files, {"scores": "feature_scores.csv"}, which,
                   splits=["val"], seed=0)  # fmt: skip
        own |= run(
            "recover_performance", place, files | {"probes": own["probes"]},
            {"recovery": "recovery.csv", "probes": "sae_probes.csv"}, which,
            control=CONTROLS[encoder], n_bootstrap=99, seed=0,
        ) | {"probes": own["probes"]}  # fmt: skip
        made[encoder] = own
    both = [made[encoder] for encoder in ENCODERS]
    in_all = run(
        "rank_configurations", folder,
        {
            "scores": [each["scores"] for each in both],
            "recovery": [each["recovery"] for each in both],
            "configs": [files["config"]] * 2,
            "quality": [str(planted.folder / "sae_quality.csv")] * 2,
        },
        {"ranking": "config_ranking.csv", "chosen": "chosen.json"},
        configurations=[
            {"base_model": encoder, "sae_config": SAE} | CONTROLS[encoder] for encoder in ENCODERS
        ],
    )  # fmt: skip
    pl.DataFrame(
        {"n_tokens": [96, 192], "fvu": [0.9, 0.5], "val_fvu": [None, 0.6], "l0": [30.0, 31.0],
         "dead_fraction": [0.0, 0.1], "tokens_per_s": [900.0, 800.0]}
    ).write_parquet(folder / "train_metrics.parquet")  # fmt: skip
    for encoder in ENCODERS:
        place, own = folder / encoder, made[encoder]
        which = {"encoder": encoder, "sae": SAE}
        own["results"], own["fingerprint"] = run(
            "retrieve_fingerprints", place, files,
            {"results": "fingerprint.csv", "summary": "fingerprint_summary.csv"}, which,
            embeddings=embeddings, splits=["test"], n_queries=40, n_bootstrap=99, seed=0,
        ).values()  # fmt: skip
        own |= run(
            "interpret_features", place, files | own,
            {name: f"interpretation/{file}" for file, name in PUBLISHED.items()}, which,
            settings=settings, embeddings=embeddings, images=images, judge_encoder="planted",
            judge_embeddings=embeddings, cache=str(place / "cache"), seed=0,
        )  # fmt: skip
        own["found"], own["language"] = run(
            "retrieve_by_language", place, files | own,
            {"results": "language_retrieval.csv", "summary": "language_summary.csv"}, which,
            settings=settings, cache=str(place / "cache"), splits=["test"], n_queries=100,
            n_bootstrap=99, seed=0,
        ).values()  # fmt: skip
        own |= run(
            "plot_image_retrieval", place, files | own,
            {name: f"{name}.svg" for name in ("fingerprint", "examples", "language")}
            | {"examples_data": "examples.csv"},
            which, images=images,
        ) | {name: own[name] for name in ("fingerprint", "language")}  # fmt: skip
        run(
            "plot_image_training", place, {"metrics": str(folder / "train_metrics.parquet")},
            {"figure": "training.svg"}, which,
        )  # fmt: skip
        own |= run(
            "plot_contact_sheet", place, files | own, {"figure": "sheet.svg", "table": "sheet.csv"},
            which, images=images,
        )  # fmt: skip
    run("plot_image_quality", folder, in_all, {"quality": "quality.svg", "ranking": "ranking.svg"})
    tables = {name: [each[name] for each in both] for name in ("probes", "recovery", "metrics")}
    run(
        "plot_image_probes", folder, tables | in_all,
        {"probes": "probes.svg", "probes_data": "probes.csv", "recovery": "recovery.svg",
         "recovery_data": "recovery.csv"},
    )  # fmt: skip
    (folder / "quarantine.csv").write_text("source,reason\nscan9.nii.gz,the file is cut short\n")
    run(
        "write_imaging_summary", folder,
        files | in_all | tables | {
            "quarantine": str(folder / "quarantine.csv"),
            "fingerprints": [each["fingerprint"] for each in both],
            "languages": [each["language"] for each in both],
        },
        SUMMARY,
        name="planted",
        evaluation={"scored_on": ["val"], "fingerprints_on": ["test"], "language_on": ["test"]},
        judged_on=["val"],
    )  # fmt: skip
    return folder


def test_every_published_table_is_written_with_its_columns(study):
    place = study / "planted"
    assert pl.read_csv(study / "config_ranking.csv").columns == list(CONFIG_RANKING)
    assert pl.read_csv(place / "feature_scores.csv").columns == list(FEATURE_SCORES)
    assert pl.read_csv(place / "recovery.csv").columns == list(RECOVERY)
    for file in PUBLISHED:
        assert (place / "interpretation" / file).stat().st_size > 0
    assert json.loads((study / "chosen.json").read_text(encoding="utf-8")) == dict.fromkeys(
        ENCODERS, SAE
    )


def test_figures_come_with_their_data_and_slices(study):
    for name in ("quality", "ranking", "probes", "recovery"):
        assert (study / f"{name}.svg").stat().st_size > 2000
    for name in ("fingerprint", "examples", "language", "sheet"):
        assert (study / "planted" / f"{name}.svg").stat().st_size > 2000
    for name in ("examples", "sheet"):
        text = (study / "planted" / f"{name}.svg").read_text(encoding="utf-8")
        assert text.count("data:image/png;base64") >= 5
        assert pl.read_csv(study / "planted" / f"{name}.csv").height >= 1
    assert pl.read_csv(study / "probes.csv")["encoder"].n_unique() == 2


def test_the_summary_says_what_was_found_and_what_cannot_be_concluded(study):
    text = (study / "summary.md").read_text(encoding="utf-8")
    assert "2,304 slices of 96 scans (48 CT, 48 MR)" in text
    assert "**planted**, test scans: ten features" in text
    assert "; random weights: " in text and "control (random weights)" in text
    assert "the autoencoder was chosen on val scans" in text
    assert "train 0.1 and 8, val 0.2 and 8.2, test 0.3 and 9: the scans differ" in text
    assert "scan9.nii.gz" in text and "the file is cut short" in text
    limits = text[text.index("What cannot be concluded") :]
    assert "24 val patients and 24 test patients" in limits
    assert "No vision-language model was asked." in limits
    assert "The names of planted were judged by the same encoder" in limits
    assert "nan" not in text and "None" not in text


@pytest.fixture(scope="module")
def collapsed(study, run, planted, tmp_path_factory):
    """The study once more with a control whose SAE collapsed and recovers one target only."""
    folder = tmp_path_factory.mktemp("collapsed")
    quality = pl.read_csv(planted.folder / "sae_quality.csv")
    spoilt = pl.when(split="val").then(1.3).otherwise("fvu").alias("fvu")
    quality.with_columns(spoilt).write_csv(folder / "sae_quality.csv")
    recovery = pl.read_csv(study / "control" / "recovery.csv", infer_schema_length=None)
    estimated = recovery.drop_nulls("recovery_above_chance").filter(split="test")
    recovery.filter(target=estimated["target"][0]).write_csv(folder / "control_recovery.csv")

    def each(name):
        return [str(study / encoder / name) for encoder in ENCODERS]

    tables = {
        "probes": each("linear_probes.csv"),
        "recovery": [each("recovery.csv")[0], str(folder / "control_recovery.csv")],
        "metrics": each("interpretation/evaluation_metrics.json"),
        "fingerprints": each("fingerprint_summary.csv"),
        "languages": each("language_summary.csv"),
        "slices": str(planted.folder / "slices.parquet"),
        "quarantine": str(study / "quarantine.csv"),
    }
    tables |= run(
        "rank_configurations", folder,
        {
            "scores": each("feature_scores.csv"),
            "recovery": tables["recovery"],
            "configs": [str(planted.folder / "cfg.json")] * 2,
            "quality": [str(planted.folder / "sae_quality.csv"), str(folder / "sae_quality.csv")],
        },
        {"ranking": "config_ranking.csv", "chosen": "chosen.json"},
        configurations=[
            {"base_model": encoder, "sae_config": SAE} | CONTROLS[encoder] for encoder in ENCODERS
        ],
    )  # fmt: skip
    run(
        "plot_image_probes", folder, tables,
        {"probes": "probes.svg", "probes_data": "probes.csv", "recovery": "recovery.svg",
         "recovery_data": "recovery.csv"},
    )  # fmt: skip
    run(
        "write_imaging_summary", folder, tables, SUMMARY,
        name="planted",
        evaluation={"scored_on": ["val"], "fingerprints_on": ["test"], "language_on": ["test"]},
        judged_on=["val"],
    )  # fmt: skip
    return folder


def test_numbers_of_a_collapsed_control_are_not_set_beside_others(study, collapsed):
    before, text = ((f / "summary.md").read_text(encoding="utf-8") for f in (study, collapsed))
    n_targets = re.search(r"Over (\d+) targets", before)[1]
    assert int(n_targets) > 1
    assert re.search(r"Over (\d+) targets", text)[1] == n_targets  # as if there were no control
    assert "random weights: no autoencoder can be used (collapsed: " in text and "FVU 1.30" in text
    assert text.count("; random weights: ") == 1
    details = text[text.index(f"## control: {SAE}") :]
    assert "Nothing said of its features means anything." in details
    assert "Nothing said of its features" not in text[: text.index(f"## control: {SAE}")]


def test_a_collapsed_sae_is_left_out_of_the_curves_of_recovery(study, collapsed):
    before, curves = (pl.read_csv(f / "recovery.csv") for f in (study, collapsed))
    assert set(before["base_model"]) == set(ENCODERS)
    assert set(curves["base_model"]) == {"planted"}
    assert (
        curves["n_targets"].to_list() == before.filter(base_model="planted")["n_targets"].to_list()
    )


def test_an_encoder_whose_saes_all_collapsed_is_in_the_figure_of_quality(collapsed):
    ranking = read_table(collapsed / "config_ranking.csv", RANKING_NUMBERS)
    assert ranking.filter(base_model="control")["recovery_at_10"].to_list() == [None]
    points, shift = draw_quality(ranking).axes
    assert {text.get_text() for text in shift.get_legend().get_texts()} == set(ENCODERS)
    drawn = [line.get_ydata() for line in shift.lines if len(line.get_xdata()) == 3]
    assert sorted(round(float(line[1]), 2) for line in drawn) == [-0.3, 0.8]
    assert len(points.lines) == 2  # one SAE, and the line at zero
    assert "There is no autoencoder." in {
        text.get_text() for text in draw_quality(ranking.clear()).findobj(Text)
    }


def test_the_same_files_come_again(study, run, planted, tmp_path):
    files = {"slices": str(planted.folder / "slices.parquet")}
    files |= {"features": str(planted.folder / "features.parquet")}
    files |= {"config": str(planted.folder / "cfg.json")}
    again = run("score_image_features", tmp_path, files, {"scores": "feature_scores.csv"},
                {"encoder": "planted", "sae": SAE}, splits=["val"], seed=0)  # fmt: skip
    first = (study / "planted" / "feature_scores.csv").read_bytes()
    assert Path(again["scores"]).read_bytes() == first


def test_a_training_job_has_a_process_for_each_of_its_gpus(run, tmp_path, monkeypatch):
    saes = {"dictionaries": [[16, 64]], "k": [[4, 8]], "gpus": 4}
    imaging = {
        "name": "planted",
        "sources": [{"path": "scans.csv"}],
        "encoders": [{"name": "planted", "source": "pixels"}],
        "saes": saes,
    }
    given = []
    monkeypatch.setattr("medsae.sae.run.train_and_publish", lambda *args: given.extend(args[6:]))
    scans = pl.DataFrame({"scan": ["a", "b"], "split": ["train", "val"]})
    scans.write_parquet(tmp_path / "scans.parquet")
    (sae,) = ImageSaes(**saes).grid()
    run(
        "train_image_sae", tmp_path, {"scans": str(tmp_path / "scans.parquet")},
        {"best": "best.safetensors"}, {"sae": sae.name}, {"imaging": imaging},
        sae=sae.defining(), epochs=None, shards=str(tmp_path), checkpoints=str(tmp_path), seed=0,
    )  # fmt: skip
    assert given == [4, 1]
