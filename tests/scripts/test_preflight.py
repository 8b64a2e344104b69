"""Bad input is told on standard output, in one sentence, and nothing else is."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[2] / "workflow/scripts/preflight.py"
SPAN = {"doc_id": "n1", "start": 0, "end": 4, "entity_group": "anatomical structure"}


def preflight(checks: dict) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT], input=json.dumps(checks), text=True, capture_output=True
    )


def test_nothing_is_said_of_good_files(tmp_path):
    spans, notes = tmp_path / "spans.jsonl", tmp_path / "notes.csv"
    spans.write_text(json.dumps(SPAN) + "\n")
    notes.write_text("id,note\nn1,lung mass\n")
    checks = {
        "spans": [str(spans)],
        "ner_notes": {"path": str(notes), "columns": {"doc_id": "id", "text": "note"}},
    }
    done = preflight(checks)
    assert (done.returncode, done.stdout) == (0, "")


def spoiled_spans(folder: Path) -> dict:
    path = folder / "spans.jsonl"
    path.write_text(json.dumps(SPAN) + "\n" + json.dumps(SPAN | {"start": "secret text"}) + "\n")
    return {"spans": [str(path)]}


def notes_without_the_column(folder: Path) -> dict:
    path = folder / "notes.csv"
    path.write_text("id,body\nn1,secret text\n")
    columns = {"doc_id": "id", "text": "note"}
    return {"ner_notes": {"path": str(path), "columns": columns}}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(spoiled_spans, "spans.jsonl"), (notes_without_the_column, "notes.csv")],
)
def test_a_bad_file_is_named_and_not_quoted(tmp_path, spoil, said):
    done = preflight(spoil(tmp_path))
    assert done.returncode == 1
    assert said in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1
    assert "secret" not in done.stdout


@pytest.mark.parametrize(
    ("to_run", "asked"),
    [
        ({"interpret_features"}, {"judge"}),
        ({"retrieve_by_language", "write_imaging_summary"}, {"judge"}),
        ({"rank_configurations", "write_imaging_summary"}, {"judge"}),
        ({"write_imaging_summary"}, None),
        ({"rank_configurations"}, None),
        ({"find_scans"}, set()),
        ({"find_scans", "rank_configurations", "write_imaging_summary"}, {"judge"}),
    ],
)
def test_models_are_checked_by_a_run_that_will_ask_them(to_run, asked):
    judge = SimpleNamespace(model_dump=lambda: {"endpoint": "http://127.0.0.1:1/v1"})
    roles = SimpleNamespace(explainer=None, judge=judge, picker=None)
    imaging = SimpleNamespace(sources=[], encoders=[], interpretation=roles)
    nothing = SimpleNamespace(gold_senses=None, gold_spans=None, adapt=None)
    names = {"C": SimpleNamespace(imaging=imaging, corpus=nothing, ner=nothing)}
    text = (SCRIPT.parents[2] / "rules/preflight.smk").read_text()
    exec(text[: text.index("\nonstart:")], names)  # what is Python of it
    checks = names["preflight_checks"](to_run).get("imaging")
    assert (None if checks is None else set(checks["asked"])) == asked
